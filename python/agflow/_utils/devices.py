"""Where a model lies and what type its numbers have."""

from __future__ import annotations

import itertools

import torch
from torch import nn


def first_parameter(model: nn.Module) -> torch.Tensor:
    """The model's first floating parameter or buffer: ``images.to(it)`` has its device and dtype.

    Models of several devices or dtypes take their images where it lies. A model without any takes
    float32 images on the CPU.
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((each for each in tensors if each.is_floating_point()), torch.empty(0))


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's first parameter."""
    return first_parameter(model).device
