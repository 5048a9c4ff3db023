"""Arrow values into and out of the Go core through the Arrow C Data Interface, without copying.

Two zeroed C structs carry each value. A call into Go releases what it was given before it returns; a result belongs to
Python from then on and is freed when the last Python object that sees it is gone.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from agflow.errors import DeviceError, DtypeError, ShapeError

_ArrayStruct = ctypes.c_int64 * 10  # struct ArrowArray, 80 bytes; the ninth word is its release callback
_SchemaStruct = ctypes.c_int64 * 9  # struct ArrowSchema, 72 bytes
_RELEASE = 8


class CStructs:
    """The two C structs of one Arrow value, zeroed: to be filled by an export, here or in Go."""

    __slots__ = ("array", "schema", "addresses")

    def __init__(self) -> None:
        self.array = _ArrayStruct()
        self.schema = _SchemaStruct()
        self.addresses = ctypes.addressof(self.array), ctypes.addressof(self.schema)

    def release(self) -> None:
        """Give up a value that nobody took over."""
        if self.array[_RELEASE]:
            pa.Array._import_from_c(*self.addresses)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the core whose arguments include Arrow values (see :func:`matrix`, :func:`record_batch`)."""
    flat: list[Any] = []
    inputs: list[CStructs] = []
    try:
        for argument in arguments:
            if isinstance(argument, (pa.Array, pa.RecordBatch)):
                structs = CStructs()
                argument._export_to_c(*structs.addresses)
                inputs.append(structs)
                flat.extend(structs.addresses)
            else:
                flat.append(argument)
        return function(*flat)
    finally:
        for structs in inputs:
            structs.release()


def call_for_batch(function: Callable[..., Any], *arguments: Any) -> pa.RecordBatch:
    """Call a function of the core that makes a record batch."""
    result = CStructs()
    call(function, *arguments, *result.addresses)
    return pa.RecordBatch._import_from_c(*result.addresses)


def call_for_array(function: Callable[..., Any], *arguments: Any) -> pa.Array:
    """Call a function of the core that makes an array."""
    result = CStructs()
    call(function, *arguments, *result.addresses)
    return pa.Array._import_from_c(*result.addresses)


def call_for_report(function: Callable[..., Any], *arguments: Any) -> tuple[str, pa.RecordBatch]:
    """Call a function of the core that makes a text and a record batch."""
    result = CStructs()
    report = call(function, *arguments, *result.addresses)
    return report, pa.RecordBatch._import_from_c(*result.addresses)


def matrix(value: Any, name: str = "matrix") -> pa.FixedSizeListArray:
    """See a matrix as an Arrow array of one fixed-size list a row, over the same memory.

    Parameters
    ----------
    value : float32 [rows, channels]
        A contiguous torch tensor on the CPU (with or without a gradient graph), a contiguous numpy array, or an Arrow
        array of fixed-size lists (pyarrow, polars, any object with ``__arrow_c_array__`` or ``__arrow_c_stream__``).
    name : str
        The word for the value in errors.

    Raises
    ------
    DtypeError
        The values are not float32, or the object is none of these.
    DeviceError
        The tensor does not lie in the memory of the CPU.
    ShapeError
        The value has not two dimensions, has no channels, or its rows are not stored one after another.
    """
    torch = sys.modules.get("torch")  # a tensor can only come from a torch that was imported
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor_matrix(value, name, torch)
    if isinstance(value, np.ndarray):
        return _numpy_matrix(value, name)
    return _arrow_matrix(value, name)


def _tensor_matrix(tensor: Any, name: str, torch: Any) -> pa.FixedSizeListArray:
    if not tensor.is_cpu:
        raise DeviceError(f"{name}: the tensor lies on {tensor.device}, expected the CPU: use .cpu() first")
    if tensor.dtype is not torch.float32:
        raise DtypeError(f"{name}: the tensor is {tensor.dtype}, expected torch.float32: use .float() first")
    if tensor.layout is not torch.strided:
        raise ShapeError(f"{name}: the tensor is stored as {tensor.layout}, expected torch.strided: use .to_dense() first")
    rows, channels = _check_shape(name, tensor.shape, tensor.is_contiguous(), ".contiguous()")
    # The buffer holds the tensor itself, so that its memory outlives every use; a gradient graph does not matter.
    values = pa.foreign_buffer(tensor.data_ptr(), rows * channels * 4, tensor) if rows else None
    return _from_buffer(values, rows, channels)


def _numpy_matrix(array: np.ndarray, name: str) -> pa.FixedSizeListArray:
    if array.dtype != np.float32:
        raise DtypeError(f"{name}: the array is {array.dtype}, expected float32: use .astype('float32') first")
    rows, channels = _check_shape(name, array.shape, array.flags.c_contiguous, "numpy.ascontiguousarray")
    return _from_buffer(pa.py_buffer(array), rows, channels)


def _check_shape(name: str, shape: tuple[int, ...], contiguous: bool, cure: str) -> tuple[int, int]:
    if len(shape) != 2 or shape[1] < 1:
        raise ShapeError(f"{name}: the shape is {tuple(shape)}, expected (rows, channels): reshape it first")
    if not contiguous:
        raise ShapeError(f"{name}: the rows are not stored one after another: use {cure} first")
    return shape


def _from_buffer(values: pa.Buffer | None, rows: int, channels: int) -> pa.FixedSizeListArray:
    flat = pa.Array.from_buffers(pa.float32(), rows * channels, [None, values], 0)
    return pa.FixedSizeListArray.from_arrays(flat, type=_list_type(channels))


@lru_cache(maxsize=None)
def _list_type(channels: int) -> pa.FixedSizeListType:
    return pa.list_(pa.float32(), channels)


def _arrow_matrix(value: Any, name: str) -> pa.FixedSizeListArray:
    array = _arrow_array(value, name)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if not pa.types.is_fixed_size_list(array.type) or array.type.value_type != pa.float32():
        raise DtypeError(f"{name}: the Arrow type is {array.type}, expected fixed-size lists of float32: cast it first")
    return array


def _arrow_array(value: Any, name: str) -> pa.Array:
    if isinstance(value, pa.Array):
        return value
    if hasattr(value, "__arrow_c_array__"):
        return pa.array(value)
    if isinstance(value, pa.ChunkedArray) or hasattr(value, "__arrow_c_stream__"):
        chunks = pa.chunked_array(value) if not isinstance(value, pa.ChunkedArray) else value
        return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
    raise DtypeError(f"{name}: expected a torch tensor, a numpy array or an Arrow array, got {type(value).__name__}")


def record_batch(value: Any, name: str = "table") -> pa.RecordBatch:
    """See a table of any Arrow tool as one record batch with plain text columns.

    Parameters
    ----------
    value : pyarrow RecordBatch or Table, polars DataFrame, or any object with ``__arrow_c_array__`` or
        ``__arrow_c_stream__``. Text columns of any Arrow encoding (large, view, dictionary) become utf8.

    Raises
    ------
    DtypeError
        The object is none of these.
    """
    if isinstance(value, pa.RecordBatch):
        table = pa.Table.from_batches([value])
    elif isinstance(value, pa.Table):
        table = value
    elif hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__"):
        table = pa.table(value)
    else:
        raise DtypeError(f"{name}: expected an Arrow table, got {type(value).__name__}")
    plain = pa.schema([field.with_type(pa.string()) if _is_text(field.type) else field for field in table.schema],
                      table.schema.metadata)
    batches = table.cast(plain).combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=plain)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return str(kind) in ("string", "large_string", "string_view")  # pyarrow 15 knows no is_string_view
