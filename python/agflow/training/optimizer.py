"""Optimizer of a fine-tuning, and the schedule of its learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from agflow.errors import InvalidValueError

WARM_UP_SHARE = 0.1


def adamw(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over the trained parameters; only matrices and convolutions have weight decay.

    Raises
    ------
    InvalidValueError
        Every parameter is frozen.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise InvalidValueError(
            "every parameter of the model is frozen: call model.requires_grad_() before fine-tuning"
        )
    is_matrix = lambda parameter: parameter.ndim in (2, 4)  # tokens and positions have 3 axes
    matrices = [parameter for parameter in trained if is_matrix(parameter)]
    others = [parameter for parameter in trained if not is_matrix(parameter)]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=lr,
    )


@dataclass(frozen=True)
class Schedule:
    """Learning rate of each step: linear warm-up, then half a cosine down to zero.

    Parameters
    ----------
    peak : learning rate after the warm-up
    steps : of the whole run, a tenth of which is warm-up
    """

    peak: float
    steps: int

    def at(self, step: int) -> float:
        """Learning rate at ``step``, from 0."""
        warm_up = max(1, round(WARM_UP_SHARE * self.steps))
        if step < warm_up:
            return self.peak * ((step + 1) / warm_up)
        angle = math.pi * (step - warm_up) / max(1, self.steps - warm_up)
        return self.peak * (0.5 * (1 + math.cos(angle)))

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rate of ``step`` in ``optimizer``."""
        for group in optimizer.param_groups:
            group["lr"] = self.at(step)
