"""The last map of features of a network: what it puts out before it pools over positions.

Shape suffixes: B images, T tokens or positions, D channels.
"""

from __future__ import annotations

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.hooks import temporary_hooks
from agflow._utils.modes import evaluating
from agflow.errors import UnsupportedModelError


def last_map(model: nn.Module, input_size: tuple[int, int, int]) -> nn.Module:
    """The module that is the last to put out features of more than one position.

    They are a map [B, C, H, W], or tokens [B, T, D]; found by a pass over one image.

    Parameters
    ----------
    input_size : channels, height and width of the image

    Raises
    ------
    UnsupportedModelError
        No module puts out such features.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.last_map import last_map
    >>> features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    >>> last_map(nn.Sequential(features, head), (3, 8, 8)) is features
    True
    """
    return _found(model, input_size)[0]


def pixels_a_position(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """The side in pixels of a position of the last map: 32 for most networks for ImageNet.

    Raises
    ------
    UnsupportedModelError
        As :func:`last_map`.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.last_map import pixels_a_position
    >>> pixels_a_position(nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.ReLU()), (3, 8, 8))
    2
    """
    positions = _found(model, input_size)[1]
    return max(1, round((input_size[1] * input_size[2] / positions) ** 0.5))


def tokens_of(output: torch.Tensor | tuple) -> torch.Tensor:
    """The tokens [B, T, D] that a block puts out; those of a map are its positions.

    Blocks of transformers put out tuples. Maps are square: where two equal sizes are followed by
    another, [B, H, W, C], the channels come last, else they are [B, C, H, W].

    Examples
    --------
    >>> import torch
    >>> from agflow.models.last_map import tokens_of
    >>> tokens_of(torch.zeros(2, 8, 7, 7)).shape, tokens_of(torch.zeros(2, 7, 7, 8)).shape
    (torch.Size([2, 49, 8]), torch.Size([2, 49, 8]))
    """
    tokens = output[0] if isinstance(output, tuple) else output
    if tokens.ndim != 4:
        return tokens
    first, second, third = tokens.shape[1:]
    if first == second != third:
        return tokens.flatten(1, 2)
    return tokens.flatten(2).transpose(1, 2)


@torch.no_grad()
def _found(model: nn.Module, input_size: tuple[int, int, int]) -> tuple[nn.Module, int]:
    """The module of the last map, and how many positions that has."""
    found: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, inputs: tuple, output: object) -> None:
        features = output[0] if isinstance(output, tuple) and output else output
        if isinstance(features, torch.Tensor) and features.ndim in (3, 4):
            tokens_BTD = tokens_of(features)
            if tokens_BTD.shape[1] > 1:
                found.append((module, tokens_BTD.shape[1]))

    image = torch.zeros(1, *input_size).to(first_parameter(model))
    inside = [module for module in model.modules() if module is not model]
    with evaluating(model), temporary_hooks(m.register_forward_hook(note) for m in inside):
        model(image)
    if not found:
        raise UnsupportedModelError(
            f"no module of {type(model).__name__} puts out features of several positions, maps "
            "[B, C, H, W] or tokens [B, T, D]: leave features out"
        )
    return found[-1]
