"""The final hidden state of a model: what its classifier reads, or what it puts out without one.

Shape suffixes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import torch
from torch import nn

from agflow._utils.hooks import temporary_hooks
from agflow._utils.modes import evaluating
from agflow.models.classifier import Head, watched
from agflow.models.forward import model_output
from agflow.models.outputs import features_of, whole_output


@torch.no_grad()
def head_of(model: nn.Module, images_BCHW: torch.Tensor) -> Head:
    """Find the classifier of a model by running it on images.

    A model has one where it calls something its logits, where it puts out [B, K] and its
    ``num_classes`` is K, where rows are distributions or logarithms of some, or where linear layers
    that ran last give [B, K], moved, scaled and averaged at most. It has none where it puts out
    anything but [B, K], where its ``num_classes`` is 0, where the stream around its last block is
    put out, or the channels of a normalised or flattened map, or where an activation or a division
    by the length follows the last linear layer. Anything else [B, K] is taken for logits, and
    ``doubt`` says why it could be features: a sigmoid, a norm of a linear layer, an activation of a
    map.

    Raises
    ------
    ShapeError
        The model cannot take the images.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models import head_of
    >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten())
    >>> images = torch.randn(2, 3, 4, 4)
    >>> head_of(nn.Sequential(features, nn.Linear(32, 5)), images)
    Head(layers=('1',), classes=5, output='Tensor [2, 5]', doubt='')
    >>> head_of(features, images).classes
    0
    """
    with evaluating(model):
        return watched(model, lambda: model_output(model, images_BCHW))[1]


def final_hidden(model: nn.Module, images_BCHW: torch.Tensor, head: Head) -> torch.Tensor:
    """Run a model and return its final hidden state [B, ...], through which gradients flow.

    That is what its classifier reads (side by side, where several are averaged), or without one
    what :func:`agflow.models.features_of` finds in its output. Of a classifier that is no linear
    layer it is the logits.

    Parameters
    ----------
    head : of the model, by :func:`head_of`

    Raises
    ------
    ShapeError, UnsupportedModelError
        The model cannot take the images; its output holds no features.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models import final_hidden, head_of
    >>> model, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), torch.randn(2, 3, 4, 4)
    >>> final_hidden(model, images, head_of(model, images)).shape
    torch.Size([2, 48])
    """
    read: list[torch.Tensor] = []

    def note(_: nn.Module, inputs: tuple) -> None:
        read.append(inputs[0])

    layers = map(model.get_submodule, head.layers)
    with temporary_hooks(layer.register_forward_pre_hook(note) for layer in layers):
        output = model_output(model, images_BCHW)
    if not head.layers:
        return whole_output(output) if head.classes else features_of(output)
    return read[0] if len(read) == 1 else torch.cat([x.flatten(1) for x in read], 1)
