"""Where a model lies and what type its numbers have."""

from __future__ import annotations

import torch
from torch import nn


def first_parameter(model: nn.Module) -> nn.Parameter:
    """The model's first parameter: ``images.to(first_parameter(model))`` has its device and dtype.

    Models of several devices or dtypes take their images where their first parameter lies.
    """
    return next(model.parameters())


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return first_parameter(model).device
