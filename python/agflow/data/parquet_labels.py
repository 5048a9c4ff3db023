"""Which columns of a parquet file hold images and labels, and the labels as numbers and names."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from agflow.data.opening import readable_name
from agflow.data.options import DataOptions
from agflow.errors import InvalidValueError

IMAGENET_CLASSES = 1000


def image_column(schema: pa.Schema, asked: str | None, path: str) -> str:
    """The name of the column that holds images.

    Raises
    ------
    InvalidValueError
        The column asked for is not there or holds no images; or it is not clear which one does.
    """
    if asked is not None or "image" in schema.names:
        name = asked or "image"
        _require(schema, name, path, "image")
    else:
        found = _of_feature(schema, "Image") or [
            field.name for field in schema if _is_image_struct(field.type)
        ]
        found = found or [field.name for field in schema if _is_binary(field.type)]
        if len(found) != 1:
            raise InvalidValueError(
                f"{readable_name(path)} has no column 'image', and "
                + (f"{' and '.join(found)} may be it" if found else "none that holds images")
                + f"; it has {_described(schema)}: name the column with image (--image-column)"
            )
        name = found[0]
    kind = schema.field(name).type
    if not (_is_image_struct(kind) or _is_binary(kind) or _is_text(kind)):
        raise InvalidValueError(
            f"column {name!r} of {readable_name(path)} is {kind}, expected encoded images: a "
            "struct with bytes and path as Hugging Face writes it, binary, or paths as text"
        )
    return name


def label_column(schema: pa.Schema, options: DataOptions, classes: int | None, path: str) -> str:
    """The name of the column that holds labels.

    Raises
    ------
    InvalidValueError
        The column asked for is not there, or it is not clear which one holds labels.
    """
    if options.label is not None:
        _require(schema, options.label, path, "label")
        return options.label
    if classes == IMAGENET_CLASSES and "imagenet_label" in schema.names:
        return "imagenet_label"
    for name in ("label", "labels", "imagenet_label"):
        if name in schema.names:
            return name
    found = _of_feature(schema, "ClassLabel")
    if len(found) != 1:
        raise InvalidValueError(
            f"{readable_name(path)} has no column 'label', and "
            + (f"{' and '.join(found)} may be it" if found else "none that is known to hold labels")
            + f"; it has {_described(schema)}: name the column with label (--label)"
        )
    return found[0]


def class_label_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The names of Hugging Face's ClassLabel, None where the file gives none."""
    names = _features(schema).get(column, {}).get("names")
    known = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return names if known else None


def label_numbers(
    column: pa.ChunkedArray, names: list[str] | None, where: str
) -> tuple[np.ndarray, list[str] | None]:
    """Labels as int64 [N], and the names of these numbers.

    Texts are numbered in alphabetical order and False and True are 0 and 1. Integers are what they
    are.

    Raises
    ------
    InvalidValueError
        A label is missing, or the column holds something else; ``where`` names it in the message.
    """
    kind = column.type
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise InvalidValueError(
            f"{where} is {kind} with {column.null_count} nulls, the first in row {row}, expected a "
            "label for each image: leave these rows out"
        )
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if _is_text(kind):
        texts, labels_N = np.unique(np.array(column.to_pylist(), object), return_inverse=True)
        return labels_N.astype(np.int64), [str(text) for text in texts]
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int64())
    elif not pa.types.is_integer(kind):
        nested = pa.types.is_nested(kind)
        cure = "argmax of one-hot rows" if nested else "a cast to int64, where they are whole"
        raise InvalidValueError(
            f"{where} is {kind}, expected integers, texts or booleans: write the numbers of the "
            f"classes ({cure})"
        )
    try:
        labels_N = column.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise InvalidValueError(f"{where} holds numbers beyond int64, expected classes") from error
    if names is not None and labels_N.size and labels_N.max() >= len(names):
        raise InvalidValueError(
            f"{where} holds the label {labels_N.max()} and names {len(names)} classes, expected "
            "labels below that number"
        )
    return labels_N, names


def _features(schema: pa.Schema) -> dict[str, dict]:
    """Hugging Face's description of each column, {} where the file has none that can be read."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: about for name, about in features.items() if isinstance(about, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _of_feature(schema: pa.Schema, feature: str) -> list[str]:
    return [
        name
        for name, about in _features(schema).items()
        if about.get("_type") == feature and name in schema.names
    ]


def _require(schema: pa.Schema, name: str, path: str, what: str) -> None:
    if schema.names.count(name) != 1:
        found = "is not in" if name not in schema.names else "is there twice in"
        raise InvalidValueError(
            f"{what} column {name!r} {found} {readable_name(path)}; it has "
            f"{', '.join(schema.names)}"
        )


def _described(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


def _is_binary(kind: pa.DataType) -> bool:
    return any(
        check(kind)
        for check in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            getattr(pa.types, "is_binary_view", lambda _: False),  # from pyarrow 16 on
        )
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        check(kind)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            getattr(pa.types, "is_string_view", lambda _: False),
        )
    )


def _is_image_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    fields: Sequence[pa.Field] = [kind.field(i) for i in range(kind.num_fields)]
    types = {field.name: field.type for field in fields}
    return _is_binary(types.get("bytes", pa.null())) or (
        "bytes" in types and _is_text(types.get("path", pa.null()))
    )
