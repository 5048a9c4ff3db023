"""Tensors whose channels lie along any axis, as matrices for the Go core: maps of convolutions."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from agflow._core.arrow import array_dtype, tensor_dtype
from agflow._core.matrix import Dtype, Matrix
from agflow.errors import DtypeError, ShapeError

_MOST_VALUES = (1 << 31) - 1
"""Of an image: the greatest fixed-size list of Arrow."""


def channel_matrix(value: Any, axis: int, name: str = "tensor") -> Matrix:
    """Describe a tensor as a matrix [rows, channels] for the Go core.

    The rows are in the order of the axes but that of the channels: of maps [B, C, H, W] image after
    image, position after position. Maps are seen where they lie, in contiguous memory as in
    channels_last; a tensor that is neither (an expanded gradient) is copied.

    Parameters
    ----------
    value : torch tensor on the CPU or numpy array of at least two dimensions, as
        :func:`agflow._core.arrow.matrix` takes them
    axis : of the channels
    name : the word for the value in errors

    Raises
    ------
    DtypeError, DeviceError
        As :func:`agflow._core.arrow.matrix`.
    ShapeError
        There is no such axis, or no channels.
    """
    torch = sys.modules.get("torch")  # a tensor can only come from a torch that was imported
    if torch is not None and isinstance(value, torch.Tensor):
        dtype = tensor_dtype(value, name, torch)
        _check_shape(value.shape, axis, name)
        moved = value.movedim(axis, -1)
        found = _matrix(moved, moved.stride(), dtype, moved.data_ptr())
        if found is not None:
            return found
        rows = moved.contiguous()
        return _rows(rows, dtype, rows.data_ptr())
    if not isinstance(value, np.ndarray):
        raise DtypeError(
            f"{name}: expected a torch tensor or a numpy array, got {type(value).__name__}"
        )
    dtype = array_dtype(value, name)
    _check_shape(value.shape, axis, name)
    moved = np.moveaxis(value, axis, -1)
    strides = [step / dtype.bytes for step in moved.strides]
    found = _matrix(moved, strides, dtype, moved.__array_interface__["data"][0])
    if found is not None:
        return found
    rows = np.ascontiguousarray(moved)
    return _rows(rows, dtype, rows.__array_interface__["data"][0])


def _check_shape(shape: Sequence[int], axis: int, name: str) -> None:
    if len(shape) < 2 or not -len(shape) <= axis < len(shape) or shape[axis] < 1:
        raise ShapeError(
            f"{name}: the shape is {tuple(shape)}, expected two dimensions or more and channels "
            f"along axis {axis}: name the axis of the channels, 1 in maps [B, C, H, W]"
        )


def _rows(copy: Any, dtype: Dtype, address: int) -> Matrix:
    """The matrix of a contiguous tensor whose channels come last."""
    *places, channels = copy.shape
    return Matrix(math.prod(places), channels, channels, dtype, address, copy)


def _matrix(owner: Any, strides: Sequence[float], dtype: Dtype, address: int) -> Matrix | None:
    """The matrix over the memory of a tensor whose channels come last; None where it has none."""
    (images, *places, channels), (image_step, *steps, channel_step) = owner.shape, strides
    rows = images * math.prod(places)
    row_step = _merged((images, *places), (image_step, *steps))
    if rows == 0:
        return Matrix(0, channels, channels, dtype, 0, owner)
    if channels == 1 or channel_step == 1:
        if rows == 1:
            row_step = channels
        if row_step is not None and row_step >= channels and row_step % 1 == 0:
            return Matrix(rows, channels, int(row_step), dtype, address, owner)
    positions = rows // images
    if images == 1:
        image_step = channels * positions
    together = _merged(places, steps) == 1 and channel_step == positions
    apart = image_step >= channels * positions and image_step % 1 == 0
    if places and together and apart and channels * positions <= _MOST_VALUES:
        return Matrix(rows, channels, int(image_step), dtype, address, owner, positions)
    return None


def _merged(shape: Sequence[int], strides: Sequence[float]) -> float | None:
    """The step of several axes seen as one; None where they are not evenly spaced."""
    step: float | None = None
    after = 1.0
    for size, stride in reversed([*zip(shape, strides, strict=True)]):
        if size == 1:
            continue  # its step means nothing
        if step is None:
            step = stride
        elif stride != after:
            return None
        after = stride * size
    return 1 if step is None else step
