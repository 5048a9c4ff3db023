"""How many channels the images of a model have, as its first layer with weights says.

A library publishes the size of the images that its weights were made for; the same architecture
can be made for grey ones. The first layer tells them apart, whatever a stem does before it
(blocks of pixels moved into channels, a cosine transform, patches unfolded): it is shown what the
stem makes of an image of the published size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.modes import evaluating


class _Reached(Exception):
    """Ends a pass at the first layer; its arguments are the channels it is shown and takes."""


def channels_read(model: nn.Module, published: Sequence[int]) -> int:
    """The channels of the images of a model that was published for a size [C, H, W].

    Those published, unless its first layer takes a multiple or a part of what they become.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.first_layer import channels_read
    >>> channels_read(nn.Sequential(nn.PixelUnshuffle(4), nn.Conv2d(16, 8, 3)), (3, 32, 32))
    1
    """
    channels = published[0]
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels == channels:
        return channels
    shown, taken = _at_first_layer(model, published) or (1, 1)
    whole, rest = divmod(channels * taken, shown)
    return channels if rest else whole


def _at_first_layer(model: nn.Module, size: Sequence[int]) -> tuple[int, int] | None:
    """How many channels the first layer is shown for an image, and takes; None if none is."""
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
    hooks = [layer.register_forward_pre_hook(_reach) for layer in layers]
    try:
        with evaluating(model), torch.no_grad():
            model(torch.zeros(1, *size).to(first_parameter(model)))
    except _Reached as reached:
        return reached.args
    except Exception:  # of any kind: the model takes no such images, and says so when it is run
        return None
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _reach(layer: Any, inputs: tuple) -> NoReturn:
    if isinstance(layer, nn.Linear):
        raise _Reached(inputs[0].shape[-1], layer.in_features)
    raise _Reached(inputs[0].shape[1], layer.in_channels)
