"""Training mode with some blocks frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from agflow._utils.modes import preserve_training_mode
from agflow.models import split


@contextmanager
def training_mode(
    model: nn.Module, teacher: nn.Module | None, frozen_blocks: int
) -> Iterator[None]:
    """Put the model in training mode, its frozen blocks and the teacher in evaluation mode.

    On exit modes and flags are as before, and the model's gradients are dropped.
    """
    frozen = []
    if frozen_blocks:
        prefix, _ = split(model, frozen_blocks)
        frozen = [parameter for parameter in prefix.parameters() if parameter.requires_grad]
    with preserve_training_mode(*filter(None, (model, teacher))):
        if teacher is not None:
            teacher.eval()
        model.train()
        _freeze(model, frozen)
        try:
            yield
        finally:
            model.zero_grad()
            for parameter in frozen:
                parameter.requires_grad_()


def _freeze(model: nn.Module, parameters: list[nn.Parameter]) -> None:
    """Freeze ``parameters``, and put modules that hold no others in evaluation mode."""
    frozen = set(parameters)
    for parameter in parameters:
        parameter.requires_grad_(False)
    for module in model.modules():
        own = set(module.parameters())
        if own and own <= frozen:
            module.eval()
