"""Tensors of what batches and files bring as tensors, arrays or lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agflow.errors import DtypeError


def as_tensor(value: Any, what: str) -> torch.Tensor:
    """A tensor of what may also be an array, or a list of tensors, arrays or numbers.

    Parameters
    ----------
    what : the values are, for the message

    Raises
    ------
    DtypeError
        No tensor can be made of them.

    Examples
    --------
    >>> from agflow.data.arrays import as_tensor
    >>> as_tensor([1, 2], "labels")
    tensor([1, 2])
    """
    try:
        if isinstance(value, (list, tuple)) and any(
            isinstance(item, torch.Tensor) for item in value
        ):
            value = torch.stack([torch.as_tensor(item) for item in value])
        elif not isinstance(value, torch.Tensor):
            value = _of_array(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DtypeError(
            f"{what} are a {type(value).__name__}, expected a tensor, or an array or a list "
            f"that makes one ({str(error).splitlines()[0] if str(error) else ''})"
        ) from error
    value = value.detach()
    # Autograd takes no tensor that was made in inference mode; a copy made outside of it, it does.
    return value.clone() if value.is_inference() else value


def _of_array(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the memory of an array where torch can: writable, native, forward."""
    native = array.dtype.newbyteorder("=")
    if array.dtype != native or not array.flags.writeable or min(array.strides, default=0) < 0:
        array = np.array(array, native)
    return torch.from_numpy(array)
