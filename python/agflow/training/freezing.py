"""Training mode with some blocks frozen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from agflow._utils.modes import preserve_training_mode
from agflow.models import split
from agflow.training.running_statistics import RunningStatistics


@contextmanager
def training_mode(
    model: nn.Module, teacher: nn.Module | None, frozen_blocks: int
) -> Iterator[None]:
    """Put the model in training mode, its frozen blocks and the teacher in evaluation mode.

    On exit modes and flags are as before, and the model's gradients are dropped.
    """
    frozen, kept = [], set[torch.Tensor]()
    if frozen_blocks:
        prefix, _ = split(model, frozen_blocks)
        frozen = [parameter for parameter in prefix.parameters() if parameter.requires_grad]
        kept = {*prefix.parameters(), *prefix.buffers()}
    # bool() of a compiled model asks for its length, which it may not have.
    present = (each for each in (model, teacher) if each is not None)
    with preserve_training_mode(*present):
        if teacher is not None:
            teacher.eval()
        model.train()
        for parameter in frozen:
            parameter.requires_grad_(False)
        _evaluate_within(model, kept)
        try:
            yield
        finally:
            model.zero_grad()
            for parameter in frozen:
                parameter.requires_grad_()


def _evaluate_within(model: nn.Module, kept: set[torch.Tensor]) -> None:
    """Put modules in evaluation mode whose parameters and running statistics are all of ``kept``.

    Other buffers do not count: a graph in evaluation mode has no numbers of batches.
    """
    for module in model.modules():
        own = {*module.parameters(), *RunningStatistics(module).tensors}
        if own and own <= kept:
            module.eval()
