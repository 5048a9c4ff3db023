"""Arrow values into and out of the Go core through the Arrow C Data Interface, without copying.

Two C structs carry each value; those of a matrix are filled here (see :mod:`agflow._core.matrix`),
those of other values by pyarrow. A call into Go releases what it was given before it returns; a
result belongs to Python from then on and is freed when the last Python object that sees it is gone.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agflow._core.long_calls import interruptible
from agflow._core.matrix import DTYPES, Dtype, Matrix
from agflow.errors import DeviceError, DtypeError, InvalidValueError, ShapeError

_ArrayStruct = ctypes.c_int64 * 10  # struct ArrowArray, 80 bytes
_SchemaStruct = ctypes.c_int64 * 9  # struct ArrowSchema, 72 bytes
_RELEASE = 8  # the word of ArrowArray that is its release callback
_SCALARS = frozenset((int, float, str))
SHORT = 1 << 17
"""Elements of matrices and tables below which a call takes less than a signal may wait."""
_NEVER_SHORT = frozenset(("calibrate_router", "stability", "write_file"))


class CStructs:
    """The two C structs of one Arrow value, zeroed: to be filled by an export, here or in Go."""

    __slots__ = ("array", "schema", "addresses")

    def __init__(self) -> None:
        self.array = _ArrayStruct()
        self.schema = _SchemaStruct()
        self.addresses = ctypes.addressof(self.array), ctypes.addressof(self.schema)

    def release(self) -> None:
        """Release a value that nobody took over."""
        if self.array[_RELEASE]:
            pa.Array._import_from_c(*self.addresses)


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the core whose arguments include Arrow values.

    Arrow values are what :func:`matrix` and :func:`record_batch` return, and arrays of pyarrow.
    Python's signal handlers run, and may end the call, unless it is short.
    """
    return _interruptible(brief_call, function, *arguments)


def _interruptible(work: Callable[..., Any], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``work`` such that a signal can end it, unless it is short."""
    size = 0
    for argument in arguments:
        if type(argument) is Matrix:
            size += argument.rows * argument.channels
        elif isinstance(argument, pa.RecordBatch):
            size += argument.num_rows * argument.num_columns
    if 0 < size < SHORT and function.__name__ not in _NEVER_SHORT:
        return work(function, *arguments)
    return interruptible(work, function, *arguments)


def brief_call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the core as :func:`call` does, without looking at signals.

    For the sums of hooks, which are called for every layer and batch, and must be all there or not.
    """
    flat: list[Any] = []
    alive: list[Any] = []
    inputs: list[CStructs] = []
    try:
        for argument in arguments:
            if type(argument) is Matrix:
                array, schema, memory = argument.export()
                flat += array, schema
                alive.append(memory)
            elif type(argument) in _SCALARS:  # asked before pyarrow's classes, for speed
                flat.append(argument)
            elif isinstance(argument, (pa.Array, pa.RecordBatch)):
                structs = CStructs()
                argument._export_to_c(*structs.addresses)
                inputs.append(structs)
                flat += structs.addresses
            else:
                flat.append(argument)
        return function(*flat)
    finally:
        for structs in inputs:
            structs.release()


def call_for_batch(function: Callable[..., Any], *arguments: Any) -> pa.RecordBatch:
    """Call a function of the core that makes a record batch."""
    return _interruptible(_call_for_batch, function, *arguments)[1]


def call_for_array(function: Callable[..., Any], *arguments: Any) -> pa.Array:
    """Call a function of the core that makes an array."""
    return _interruptible(_call_for_array, function, *arguments)[1]


def call_for_report(function: Callable[..., Any], *arguments: Any) -> tuple[str, pa.RecordBatch]:
    """Call a function of the core that makes a text and a record batch."""
    return _interruptible(_call_for_batch, function, *arguments)


def call_for_change(function: Callable[..., Any], *arguments: Any) -> pa.RecordBatch | None:
    """Call a function of the core that makes a record batch or None."""
    return _interruptible(_call_for_batch, function, *arguments)[1]


def _call_for(kind: Any, function: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
    """Return the answer of a function and the value of the kind that it has made, if any."""
    result = CStructs()
    try:
        answer = brief_call(function, *arguments, *result.addresses)
        made = kind._import_from_c(*result.addresses) if result.array[_RELEASE] else None
        return answer, made
    finally:
        result.release()


_call_for_batch = partial(_call_for, pa.RecordBatch)
_call_for_array = partial(_call_for, pa.Array)


def matrix(value: Any, name: str = "matrix") -> Matrix:
    """Describe a matrix for the Go core, over the same memory.

    Parameters
    ----------
    value : float32, float64, float16 or bfloat16 [rows, channels]
        A torch tensor on the CPU (with or without a gradient graph) or a numpy array, whose
        channels lie next to each other and whose rows do not overlap; or an Arrow array of
        fixed-size lists (pyarrow, polars, any object with ``__arrow_c_array__`` or
        ``__arrow_c_stream__``) without nulls. bfloat16 comes from torch or ml_dtypes.
    name : str
        The word for the value in errors.

    Raises
    ------
    DtypeError
        The values have another type, or the object is none of these.
    DeviceError
        The tensor does not lie in the memory of the CPU.
    ShapeError
        The value has not two dimensions, has no channels, its channels lie apart, or its rows
        overlap.
    InvalidValueError
        Arrow values are null.
    """
    torch = sys.modules.get("torch")  # a tensor can only come from a torch that was imported
    if torch is not None and isinstance(value, torch.Tensor):
        return _tensor_matrix(value, name, torch)
    if isinstance(value, np.ndarray):
        return _numpy_matrix(value, name)
    return _arrow_matrix(value, name)


def _tensor_matrix(tensor: Any, name: str, torch: Any) -> Matrix:
    dtype = tensor_dtype(tensor, name, torch)
    rows, channels = _rows_and_channels(name, tensor.shape)
    stride = (
        channels
        if tensor.is_contiguous()
        else _row_stride(name, tensor.shape, tensor.stride(), ".contiguous()")
    )
    return Matrix(rows, channels, stride, dtype, tensor.data_ptr(), tensor)


def tensor_dtype(tensor: Any, name: str, torch: Any) -> Dtype:
    """The type of a tensor's elements, if the core can read them where they are.

    Raises
    ------
    DtypeError, DeviceError, ShapeError
        It cannot: see :func:`matrix`.
    """
    if not tensor.is_cpu:
        raise DeviceError(
            f"{name}: the tensor lies on {tensor.device}, expected the CPU: use .cpu() first"
        )
    dtype = _torch_dtype(tensor.dtype)
    if dtype is None:
        raise DtypeError(
            f"{name}: the tensor is {tensor.dtype}, expected torch.float32, float64, float16 or "
            "bfloat16: use .float() first"
        )
    if tensor.layout is not torch.strided:
        raise ShapeError(
            f"{name}: the tensor is stored as {tensor.layout}, expected torch.strided: use "
            ".to_dense() first"
        )
    return dtype


@cache
def _torch_dtype(dtype: Any) -> Dtype | None:
    return DTYPES.get(str(dtype).removeprefix("torch."))


def _numpy_matrix(array: np.ndarray, name: str) -> Matrix:
    dtype = array_dtype(array, name)
    rows, channels = _rows_and_channels(name, array.shape)
    stride = channels
    if not array.flags.c_contiguous:
        strides = [step / dtype.bytes for step in array.strides]
        stride = _row_stride(name, (rows, channels), strides, "numpy.ascontiguousarray")
    return Matrix(rows, channels, stride, dtype, array.__array_interface__["data"][0], array)


def array_dtype(array: np.ndarray, name: str) -> Dtype:
    """The type of a numpy array's elements.

    Raises
    ------
    DtypeError
        The core does not read it.
    """
    dtype = _numpy_dtype(array.dtype)
    if dtype is None:
        raise DtypeError(
            f"{name}: the array is {array.dtype!r}, expected native float32, float64, float16 or "
            "bfloat16: use .astype('float32') first"
        )
    return dtype


@lru_cache(maxsize=256)
def _numpy_dtype(dtype: np.dtype) -> Dtype | None:
    # By name: bfloat16 is a dtype of ml_dtypes, which need not be installed.
    return DTYPES.get(dtype.name) if dtype.isnative else None


def _rows_and_channels(name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2 or shape[1] < 1:
        raise ShapeError(
            f"{name}: the shape is {tuple(shape)}, expected (rows, channels): reshape it first"
        )
    return shape


def _row_stride(name: str, shape: tuple[int, int], strides: Sequence[float], cure: str) -> int:
    """Elements from row to row. The step along an axis of a single element means nothing."""
    (rows, channels), (row_step, channel_step) = shape, strides
    if rows < 2:
        row_step = channels
    if channels > 1 and channel_step != 1 or row_step < channels or row_step % 1:
        raise ShapeError(
            f"{name}: the channels of a row do not lie next to each other, or rows overlap: use "
            f"{cure} first"
        )
    return int(row_step)


def _arrow_matrix(value: Any, name: str) -> Matrix:
    lists = _arrow_array(value, name)
    if isinstance(lists, pa.ExtensionArray):
        lists = lists.storage
    dtype = (
        _ARROW_DTYPES.get(lists.type.value_type)
        if pa.types.is_fixed_size_list(lists.type)
        else None
    )
    if dtype is None:
        raise DtypeError(
            f"{name}: the Arrow type is {lists.type}, expected fixed-size lists of float32, "
            "float64 or float16: cast it first"
        )
    rows, channels = _rows_and_channels(name, (len(lists), lists.type.list_size))
    values = lists.flatten()  # a view, unless a list is null
    nulls = lists.null_count or values.null_count
    if nulls:
        raise InvalidValueError(
            f"{name}: {nulls} of {rows if lists.null_count else len(values)} values are null: fill "
            "or drop them first"
        )
    buffer = values.buffers()[1]
    address = buffer.address + values.offset * dtype.bytes if rows else 0
    return Matrix(rows, channels, channels, dtype, address, values)


_ARROW_DTYPES = {
    pa.float32(): DTYPES["float32"],
    pa.float64(): DTYPES["float64"],
    pa.float16(): DTYPES["float16"],
}


def _arrow_array(value: Any, name: str) -> pa.Array:
    if isinstance(value, pa.Array):
        return value
    if hasattr(value, "__arrow_c_array__"):
        return pa.array(value)
    if isinstance(value, pa.ChunkedArray) or hasattr(value, "__arrow_c_stream__"):
        chunks = pa.chunked_array(value) if not isinstance(value, pa.ChunkedArray) else value
        return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
    raise DtypeError(
        f"{name}: expected a torch tensor, a numpy array or an Arrow array, got "
        f"{type(value).__name__}"
    )


def record_batch(value: Any, name: str = "table") -> pa.RecordBatch:
    """Convert a table of any Arrow tool to one record batch with plain text columns.

    Parameters
    ----------
    value : pyarrow RecordBatch or Table, pandas or polars DataFrame, or any object with
        ``__arrow_c_array__`` or ``__arrow_c_stream__``. Text columns of any Arrow encoding (large,
        view) become utf8, categories (dictionaries) their values, decimals float64, integers of
        other widths than 32 and 64 signed bits int64, and lists of one length fixed-size ones.

    Raises
    ------
    DtypeError
        The object is none of these, or holds values that no Arrow table can.
    """
    try:
        table = _arrow_table(value, name)
        plain = pa.schema(
            [
                field.with_type(_plain_type(field.type, column))
                for field, column in zip(table.schema, table.columns, strict=True)
            ],
            table.schema.metadata,
        )
        batches = table.cast(plain).combine_chunks().to_batches()
    except (pa.ArrowException, NotImplementedError) as error:
        raise DtypeError(
            f"{name}: the table cannot be taken as Arrow's ({error}); cast its columns first"
        ) from error
    if len(batches) > 1:
        raise DtypeError(f"{name}: a text column has more than 2 GiB, expected less: drop it")
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=plain)


def _arrow_table(value: Any, name: str) -> pa.Table:
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    if isinstance(value, pa.Table):
        return value
    pandas = sys.modules.get("pandas")  # a frame can only come from a pandas that was imported
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return pa.Table.from_pandas(value, preserve_index=False)
    if hasattr(value, "__arrow_c_array__") or hasattr(value, "__arrow_c_stream__"):
        return pa.table(value)
    raise DtypeError(
        f"{name}: expected an Arrow table or a data frame, got {type(value).__name__}: collect a "
        "lazy frame, and read a file with load"
    )


_WIDENED = frozenset(("int8", "int16", "uint8", "uint16", "uint32", "uint64"))


def _plain_type(kind: pa.DataType, column: pa.ChunkedArray) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type, column)
    if str(kind).startswith(("list", "large_list")):
        lengths = pc.call_function("list_value_length", [column]).unique().to_pylist()
        return pa.list_(kind.value_type, lengths[0]) if len(lengths) == 1 and lengths[0] else kind
    if pa.types.is_decimal(kind):
        return pa.float64()
    if str(kind) in _WIDENED:  # the core reads uint16 as the bits of bfloat16
        return pa.int64()
    # By name: pyarrow 15 has no is_string_view.
    return pa.string() if str(kind) in ("large_string", "string_view") else kind
