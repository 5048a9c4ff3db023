"""Hooks that pass activations and gradients to a sink while autograd holds them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from agflow._utils.hooks import temporary_hooks
from agflow._utils.modes import preserve_training_mode, without_checkpointing
from agflow.calibration.taps import Sink, Taps
from agflow.models import ChannelGroup, adapter_for
from agflow.models.copying import watched


@contextmanager
def capture(
    model: nn.Module,
    layers: Sequence[ChannelGroup],
    sink: Sink,
    *,
    trainable: Collection[nn.Parameter] = (),
) -> Iterator[None]:
    """Pass the layers' activations and gradients to ``sink`` at every backward pass.

    The sink is called during ``backward()``, once a layer and batch, with the tensors autograd
    works on (views of them where a layer is seen at one place): it must not keep or change them. An
    error of the sink comes out of ``backward()``. Y has the values that the model had at the tap,
    also where it overwrites them afterwards. Meanwhile the weights are frozen, those in
    ``trainable`` excepted, and the model is in evaluation mode; on exit requires_grad, modes and
    hooks are as before.

    Parameters
    ----------
    layers : of the model's adapter, such as ``agflow.models.adapter_for(model).layers(model)``
    sink : takes (layer index, images, Y, G), both [R, C] with R = images * tokens; of maps
        [B, P, C], images, positions and channels in whatever memory layout the maps have
    trainable : parameters that get gradients

    Raises
    ------
    UnknownLayerError
        The model has no module where a layer has its tap; the layers are those of another model.
    UnsupportedModelError
        ``backward()`` raises it where a part of the model was called by itself and overwrote what
        was seen.

    Examples
    --------
    >>> import torch
    >>> import agflow
    >>> from agflow.calibration import capture, per_image_loss
    >>> from agflow.models import adapter_for
    >>> model, _, _ = agflow.load_model("example")
    >>> mlps = [layer for layer in adapter_for(model).layers(model) if layer.kind == "mlp"][:2]
    >>> seen = {}
    >>> def sink(index, images, y, g):
    ...     seen[mlps[index].name] = images, tuple(y.shape), tuple(g.shape)
    >>> with capture(model, mlps, sink):
    ...     per_image_loss(model(torch.rand(2, 1, 28, 28)), torch.tensor([0, 1])).backward()
    >>> seen["blocks.0.mlp"]
    (2, (100, 512), (100, 512))
    """
    with (
        torch.enable_grad(),
        preserve_training_mode(model),
        without_checkpointing(model),
        _frozen(model, trainable),
        watched(adapter_for(model), model),
        temporary_hooks(Taps(layers, sink).hooks(model)),
    ):
        model.eval()
        yield


@contextmanager
def _frozen(model: nn.Module, trainable: Collection[nn.Parameter]) -> Iterator[None]:
    """Freeze all parameters but ``trainable``; restore their flags on exit."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for parameter in trainable:
            parameter.requires_grad_()
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
