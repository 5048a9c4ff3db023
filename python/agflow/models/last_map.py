"""The last map of features of a network: what it puts out before it pools over positions."""

from __future__ import annotations

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.hooks import temporary_hooks
from agflow._utils.modes import evaluating
from agflow.errors import UnsupportedModelError


@torch.no_grad()
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
    found: list[nn.Module] = []

    def note(module: nn.Module, inputs: tuple, output: object) -> None:
        if _has_positions(output[0] if isinstance(output, tuple) and output else output):
            found.append(module)

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


def _has_positions(output: object) -> bool:
    if not isinstance(output, torch.Tensor):
        return False
    return (output.ndim == 3 and output.shape[1] > 1) or (
        output.ndim == 4 and output.shape[1:].numel() > max(output.shape[1:])
    )
