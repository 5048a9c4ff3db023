"""What a user gives as an expert's answers, labels and priors, read as numpy arrays.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from agflow.cascade.any_arrays import missing_values, one_column, plain_array
from agflow.errors import DtypeError, InvalidValueError, NonFiniteError, ShapeError

SUM_OF_PROBABILITIES = 1e-2
"""How far from 1 the sum of a row of probabilities may be, which were rounded to be printed."""


class Answers(NamedTuple):
    """What one expert answered to N images.

    Attributes
    ----------
    values : logits, float [N, K], or predicted classes [N], int64 numbers or names
    columns : names of the classes that the columns of logits have, None where they have none
    """

    values: np.ndarray
    columns: tuple[str, ...] | None = None


def read_answers(value: Any, name: str) -> Answers:
    """Read logits [N, K] or predicted classes [N].

    Probabilities become their logarithms, which are logits of the same probabilities.

    Raises
    ------
    ShapeError, DtypeError, InvalidValueError
        They are neither, or values are missing.
    """
    plain, columns = plain_array(value, name), None
    if isinstance(plain, dict) and len(plain) > 1:
        plain, columns = _side_by_side(plain, name), tuple(plain)
    plain = one_column(plain, name)
    if plain.ndim == 1:
        return Answers(_classes(plain, name, "logits [images, classes], or predicted classes"))
    if plain.ndim != 2 or plain.shape[1] < 2:
        raise ShapeError(
            f"{name}: the shape is {plain.shape}, expected logits (images, classes), or one "
            "predicted class an image"
        )
    return Answers(_logits_of_probabilities(_floats(plain, name)), columns)


def read_logits(value: Any, name: str) -> np.ndarray:
    """Read logits [N, K] as they are, floats of 16, 32 or 64 bits.

    Raises
    ------
    ShapeError, DtypeError, InvalidValueError
        They are no logits, or values are missing.
    """
    plain = plain_array(value, name)
    if isinstance(plain, dict):
        plain = _side_by_side(plain, name) if len(plain) > 1 else one_column(plain, name)
    if plain.ndim != 2 or plain.shape[1] < 1:
        raise ShapeError(f"{name}: the shape is {plain.shape}, expected (images, classes)")
    return _floats(plain, name)


def read_classes(value: Any, name: str) -> np.ndarray:
    """Read one class an image: numbers, int64 [N], or names.

    Raises
    ------
    ShapeError, DtypeError, InvalidValueError
        They are no classes, or values are missing.
    """
    plain = plain_array(value, name, batches=True)
    if isinstance(plain, dict) and len(plain) > 1:
        raise ShapeError(
            f"{name}: the table has the columns {', '.join(plain)}, expected one: select it"
        )
    plain = one_column(plain, name)
    if plain.ndim == 2:
        raise ShapeError(
            f"{name}: the shape is {plain.shape}, as one-hot or soft labels have, expected one "
            "class an image: give .argmax(1)"
        )
    if plain.ndim != 1:
        raise ShapeError(f"{name}: the shape is {plain.shape}, expected one class an image")
    return _classes(plain, name, "classes")


def read_priors(value: Any, name: str) -> dict[str, np.ndarray]:
    """Read priors by name, float32 [N], from a dictionary of columns or any table.

    Raises
    ------
    ShapeError, DtypeError, InvalidValueError, NonFiniteError
        They are no columns of finite numbers with names.
    """
    if isinstance(value, Mapping):
        plain = {key: plain_array(column, f"{name}[{key!r}]") for key, column in value.items()}
    else:
        plain = plain_array(value, name)
    if not isinstance(plain, dict):
        raise DtypeError(
            f'{name}: got {type(value).__name__}, expected columns by name: {{"my_prior": values}}'
        )
    found = {}
    for key, column in plain.items():
        if not isinstance(key, str) or not key:
            raise InvalidValueError(f"{name}: the name {key!r} of a column is no text: name it")
        column = one_column(column, f"{name}[{key!r}]")
        if column.ndim != 1:
            raise ShapeError(
                f"{name}[{key!r}]: the shape is {column.shape}, expected one number an image"
            )
        with np.errstate(over="ignore"):  # infinite then, which is said below
            found[key] = _floats(column, f"{name}[{key!r}]").astype(np.float32)
        _check_finite(found[key], f"{name}[{key!r}]")
    return found


def _side_by_side(columns: dict[str, np.ndarray], name: str) -> np.ndarray:
    """The columns of a table of logits as a matrix."""
    for column, values in columns.items():
        if values.ndim != 1 or values.dtype.kind not in "iuf":
            raise DtypeError(
                f"{name}: the column {column!r} holds no numbers, expected the logits of a class "
                "in every column: select the columns of the classes"
            )
    return np.stack(list(columns.values()), axis=1)


def _classes(values: np.ndarray, name: str, expected: str) -> np.ndarray:
    """Class numbers as int64, names as they are."""
    kind = values.dtype.kind
    if kind in "Ob" or kind == "i":
        return values if kind == "O" else values.astype(np.int64)
    if kind == "u":
        if len(values) and values.max() > np.iinfo(np.int64).max:
            raise InvalidValueError(f"{name}: {values.max()} is no class, expected less than 2^63")
        return values.astype(np.int64)
    if kind != "f":
        raise DtypeError(f"{name}: the values are {values.dtype}, expected {expected}")
    if np.isnan(values).any():
        raise missing_values(name, np.isnan(values))
    odd = np.flatnonzero((values != np.floor(values)) | (np.abs(values) >= 2**53))
    if len(odd):
        raise DtypeError(
            f"{name}: row {odd[0]} is {values[odd[0]]:g}, expected {expected}: whole numbers from "
            "0, or names"
        )
    return values.astype(np.int64)


def _floats(values: np.ndarray, name: str) -> np.ndarray:
    """Numbers as floats whose rows lie together, in the machine's byte order."""
    if values.dtype.kind not in "iuf":
        raise DtypeError(f"{name}: the values are {_type_of(values)}, expected numbers")
    kept = values.dtype.kind == "f" and values.dtype.itemsize in (2, 4, 8)
    dtype = values.dtype.newbyteorder("=") if kept else np.dtype(np.float64)
    return np.ascontiguousarray(values, dtype)


def _type_of(values: np.ndarray) -> str:
    return "texts" if values.dtype.kind == "O" else str(values.dtype)


def _logits_of_probabilities(values_NK: np.ndarray) -> np.ndarray:
    """The logarithm of probabilities; logits as they are."""
    if not len(values_NK) or not (values_NK.min() >= 0 and values_NK.max() <= 1):
        return values_NK
    sums_N = values_NK.sum(1, dtype=np.float64)
    if np.abs(sums_N - 1).max() > SUM_OF_PROBABILITIES:
        return values_NK
    wide_NK = values_NK.astype(np.float32) if values_NK.dtype == np.float16 else values_NK
    return np.log(np.maximum(wide_NK, np.finfo(wide_NK.dtype).tiny))


def _check_finite(values: np.ndarray, name: str) -> None:
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise NonFiniteError(
            f"{name}: {len(wrong)} of {len(values)} values are not finite, the first "
            f"{values[wrong[0]]} in row {wrong[0]}: look for an overflow or a missing value"
        )
