"""Logits, classes and priors of any array library as numpy arrays, without torch.

Taken are numpy arrays of any number type, byte order and layout, torch tensors, lists, pandas and
polars frames and columns, Arrow arrays and tables of any encoding, and objects with
``__arrow_c_array__``, ``__arrow_c_stream__``, ``__array__`` or ``__dlpack__``. What holds missing
values, or would be a guess, is refused by its name.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

import array
import decimal
import numbers
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agflow.errors import AgflowError, DtypeError, InvalidValueError, ShapeError


def check_same_index(values: Mapping[str, Any]) -> None:
    """Check that pandas frames and columns that name their rows have them in one order.

    Raises
    ------
    InvalidValueError
        The indexes of two of them differ. The index 0, 1, 2, … names no rows.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None:
        return
    named = [
        (name, value.index)
        for name, value in values.items()
        if isinstance(value, (pandas.DataFrame, pandas.Series))
        and not isinstance(value.index, pandas.RangeIndex)
    ]
    for name, index in named[1:]:
        if not index.equals(named[0][1]):
            raise InvalidValueError(
                f"the index of {name} differs from that of {named[0][0]}, expected the same images "
                "in the same order: use .loc with one index for both, or .reset_index(drop=True)"
            )


def plain_array(
    value: Any, name: str, *, batches: bool = False
) -> np.ndarray | dict[str, np.ndarray]:
    """Convert to a numpy array, or a table to its columns by name.

    Parameters
    ----------
    batches : arrays of one dimension in a list are batches, otherwise rows where they are floats

    Raises
    ------
    DtypeError, ShapeError, InvalidValueError
        It is no array, or values are missing.
    """
    try:
        return _converted(value, name, batches)
    except AgflowError:
        raise
    except Exception as error:  # of any library
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DtypeError(
            f"{name}: {type(value).__name__} cannot be read as an array ({reason:.120}): pass a "
            "numpy array, or a table of numbers"
        ) from error


def _converted(value: Any, name: str, batches: bool) -> np.ndarray | dict[str, np.ndarray]:
    torch, pandas = sys.modules.get("torch"), sys.modules.get("pandas")
    if torch is not None and isinstance(value, torch.Tensor):
        return _of_tensor(value, torch)
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _of_table(pa.Table.from_pandas(value, preserve_index=False), name)
    if pandas is not None and isinstance(value, (pandas.Series, pandas.Index)):
        return _of_arrow(pa.array(value, from_pandas=True), name)
    if isinstance(value, np.ndarray):
        return _of_numpy(value, name, batches)
    if isinstance(value, Mapping):
        found = {key: plain_array(column, f"{name}[{key!r}]") for key, column in value.items()}
        return {str(key): one_column(column, f"{name}[{key!r}]") for key, column in found.items()}
    if isinstance(value, (pa.Table, pa.RecordBatch)):
        return _of_table(value, name)
    if isinstance(value, (pa.Array, pa.ChunkedArray)):
        return _of_arrow(value, name)
    if hasattr(value, "__arrow_c_stream__"):
        return _of_arrow(pa.chunked_array(value), name)
    if hasattr(value, "__arrow_c_array__"):
        return _of_arrow(pa.array(value), name)
    if isinstance(value, (list, tuple, range)):
        return _of_sequence(list(value), name, batches)
    if hasattr(value, "__array__") or isinstance(value, (memoryview, array.array)):
        return _of_numpy(np.asarray(value), name, batches)
    if hasattr(value, "__dlpack__"):
        return _of_numpy(np.from_dlpack(value), name, batches)
    raise DtypeError(
        f"{name}: got {type(value).__name__}, expected an array, a tensor, a list or a table: "
        "collect a lazy frame, and read a file first"
    )


def _of_tensor(tensor: Any, torch: Any) -> np.ndarray:
    tensor = tensor.detach()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point() and str(tensor.dtype)[-2:] not in ("16", "32", "64"):
        tensor = tensor.float()  # the 8-bit floats
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.float()
    return tensor.cpu().resolve_conj().resolve_neg().numpy()


def _of_numpy(values: np.ndarray, name: str, batches: bool) -> np.ndarray | dict[str, np.ndarray]:
    if isinstance(values, np.ma.MaskedArray) and np.ma.count_masked(values):
        raise missing_values(name, np.ma.getmaskarray(values))
    values = np.asarray(values)
    if values.dtype.names is not None:
        fields = {field: _of_numpy(values[field], name, batches) for field in values.dtype.names}
        return {field: one_column(column, name) for field, column in fields.items()}
    if values.ndim == 0:
        raise ShapeError(f"{name}: got one value, expected one for each image")
    if values.dtype.kind == "V":
        return values.astype(np.float32)  # bfloat16 and the like, of ml_dtypes
    if values.dtype.kind == "O":
        if values.ndim == 1 and len(values) and isinstance(values[0], (list, tuple, np.ndarray)):
            return _of_sequence(list(values), name, batches)
        return _of_objects(values, name)
    if values.dtype.kind in "SUT":
        decoded = np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
        return decoded.astype(object)
    return values


def _of_objects(values: np.ndarray, name: str) -> np.ndarray:
    """An array of Python's objects as one of texts or of numbers."""
    flat = values.reshape(-1).tolist()
    missing = np.array([item is None or item != item for item in flat], bool)
    if missing.any():
        raise missing_values(name, missing.reshape(values.shape))
    for kinds, dtype in (
        (str, object),
        ((bool, np.bool_), bool),
        (numbers.Integral, np.int64),
        ((numbers.Real, decimal.Decimal), np.float64),
    ):
        if all(isinstance(item, kinds) for item in flat):
            return np.array(flat, dtype).reshape(values.shape)
    odd = next((item for item in flat if not isinstance(item, type(flat[0]))), flat[0])
    raise DtypeError(
        f"{name}: its values are of several types ({type(flat[0]).__name__}, "
        f"{type(odd).__name__}), expected numbers, or texts, alone"
    )


def _of_sequence(items: list, name: str, batches: bool) -> np.ndarray | dict[str, np.ndarray]:
    """A list of values or of rows, or of arrays, which are rows or batches."""
    foreign = ("__array__", "__dlpack__", "__arrow_c_array__", "__arrow_c_stream__")
    if not any(hasattr(item, mark) for item in items[:1] for mark in foreign):
        try:
            values = np.array(items)
        except ValueError as error:
            raise ShapeError(
                f"{name}: its rows are of different lengths, expected as many values in each"
            ) from error
        return _of_numpy(values, name, batches)
    parts = [plain_array(item, f"{name}[{at}]") for at, item in enumerate(map(_at_least_1d, items))]
    parts = [one_column(part, name) if isinstance(part, dict) else part for part in parts]
    if parts[0].ndim == 1 and not batches and parts[0].dtype.kind == "f" and len(parts[0]) > 1:
        if len({len(part) for part in parts}) > 1:
            raise ShapeError(
                f"{name}: its rows are of different lengths, expected as many values in each"
            )
        return np.stack(parts)
    return np.concatenate(parts)


def _at_least_1d(item: Any) -> Any:
    """A single value as an array of one."""
    return item.reshape(1) if getattr(item, "ndim", 1) == 0 else item


def _of_table(table: pa.Table | pa.RecordBatch, name: str) -> dict[str, np.ndarray]:
    names = table.schema.names
    if not names or len(set(names)) < len(names):
        raise InvalidValueError(
            f"{name}: the table has the columns {names!r:.80}, expected names of their own: "
            "rename them"
        )
    return {column: _of_column(table.column(column), f"{name}[{column!r}]") for column in names}


def _of_arrow(column: Any, name: str) -> np.ndarray | dict[str, np.ndarray]:
    """A column, or a table that came as a column of structs."""
    if not pa.types.is_struct(column.type):
        return _of_column(column, name)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    batches = [pa.RecordBatch.from_struct_array(chunk) for chunk in chunks]
    return _of_table(pa.Table.from_batches(batches, pa.schema(list(column.type))), name)


def _of_column(column: Any, name: str) -> np.ndarray:
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        values = column.dictionary
        if str(values.type) == "string_view":  # which pyarrow cannot take from
            values = values.cast(pa.string())
        column = pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()
    if column.null_count:
        raise missing_values(name, column.is_null().to_numpy(zero_copy_only=False))
    kind = column.type
    if str(kind).startswith(("list", "large_list", "fixed_size_list")):
        return _of_lists(column, name)
    if pa.types.is_decimal(kind):
        column = column.cast(pa.float64())
    elif str(kind) in ("string", "large_string", "string_view"):
        return np.array(column.to_pylist(), object)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DtypeError(
            f"{name}: the column is {kind}, expected numbers or texts: cast it, or leave it out"
        )
    return column.to_numpy(zero_copy_only=False)


def _of_lists(column: Any, name: str) -> np.ndarray:
    if not len(column):
        raise ShapeError(f"{name}: there is no row, expected one for each image")
    lengths = pc.call_function("list_value_length", [column]).unique().to_pylist()
    if len(lengths) > 1:
        raise ShapeError(
            f"{name}: its rows have {min(lengths)} to {max(lengths)} values, expected as many in "
            "each"
        )
    return _of_column(column.flatten(), name).reshape(len(column), lengths[0])


def one_column(plain: np.ndarray | dict[str, np.ndarray], name: str) -> np.ndarray:
    """An array; of a table its only column. A column [N, 1] becomes [N]."""
    if isinstance(plain, dict):
        if len(plain) != 1:
            raise ShapeError(f"{name}: the table has {len(plain)} columns, expected one: select it")
        (plain,) = plain.values()
    return plain[:, 0] if plain.ndim == 2 and plain.shape[1] == 1 else plain


def missing_values(name: str, missing: np.ndarray) -> InvalidValueError:
    first = int(np.argwhere(missing)[0][0])
    return InvalidValueError(
        f"{name}: {int(missing.sum())} of {missing.size} values are missing (null or NaN), the "
        f"first in row {first}: fill or drop them first"
    )
