"""The memory of tensors, for digests."""

from __future__ import annotations

import torch


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The values of a tensor of any shape as bytes, row by row; a copy only where it needs one."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
