"""The memory of tensors, and how far two of them are apart."""

from __future__ import annotations

import math

import torch


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The values of a tensor of any shape as bytes, row by row; a copy only where it needs one."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference as a share of the largest expected value; 0 where all is 0.

    Infinite where something else than the expected zeros was found, NaN where anything is NaN.
    """
    difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
    if difference == 0:
        return 0.0
    return difference / largest if largest else math.inf
