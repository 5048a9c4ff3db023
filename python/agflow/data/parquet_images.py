"""``parquet:FILE``, a folder or a pattern of files: encoded images, read by row group."""

from __future__ import annotations

import glob
import io
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from agflow.data.decoding import open_image
from agflow.data.opening import check_regular, open_regular, readable_name, reading
from agflow.data.options import DataOptions
from agflow.data.parquet_labels import (
    class_label_names,
    image_column,
    label_column,
    label_numbers,
)
from agflow.data.source import Source
from agflow.errors import CorruptFileError, FileError, InvalidValueError

KEPT_BYTES = 256 << 20  # of encoded images that a data set keeps in a process
_ROWS_AT_A_TIME = 16  # of a row group in memory; a photograph has some 100 kB
_BUFFER_BYTES = 1 << 20  # of a column that is read from disk
_SHARD = re.compile(r"(.*)-(\d+)-of-(\d+)\.parquet")


def read_parquet(spec: str, options: DataOptions, classes: int | None) -> Source:
    """Read the labels of one file or of several; images are read when they are taken.

    Raises
    ------
    FileError, CorruptFileError
        A file is missing, no regular file or damaged.
    InvalidValueError
        A column is missing or of a type that holds no images or labels; the files do not belong
        together.
    """
    paths = _files(spec)
    labels, groups = [], []
    first = None
    for number, path in enumerate(paths):
        check_regular(path)
        with reading(path, "parquet file"):
            file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES)
            schema = file.schema_arrow
            image = image_column(schema, options.image, path)
            label = label_column(schema, options, classes, path)
            names = class_label_names(schema, label)
            columns = (image, label, names, schema.field(image).type, schema.field(label).type)
            if first is not None and columns != first:
                raise InvalidValueError(
                    f"{readable_name(path)} and {readable_name(paths[0])} differ in their columns "
                    "of images and labels or in the names of the classes, so they are no parts of "
                    "one data set: give each by itself"
                )
            first = columns
            labels.append(file.read([label]).column(0))
            rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        groups += [(number, group, count) for group, count in enumerate(rows)]
    assert first is not None
    image, label, names = first[:3]
    where = f"column {label!r} of {readable_name(spec)}"
    labels_N, names = label_numbers(
        pa.chunked_array([c for a in labels for c in a.chunks], labels[0].type), names, where
    )
    table = np.array(groups, np.int64).reshape(-1, 3)
    return Source(labels_N, names, lambda taken: ParquetImages(paths, image, table, taken))


class ParquetImages:
    """Some rows of parquet files, of which a row group is read at a time.

    Of a row group the rows that were taken are kept, in all up to ``KEPT_BYTES`` and one image; the
    row groups that were not used for the longest time go first. Of one that is larger, the rows
    that come next in the order of the data set are kept.

    Parameters
    ----------
    paths : of the files
    column : of the images
    groups : int64 [G, 3], of each row group its file, its number there and its rows
    rows_N : int64 [N], the rows that were taken, counted through all files
    """

    def __init__(self, paths: list[str], column: str, groups: np.ndarray, rows_N: np.ndarray):
        self.files, self._column, self._groups, self._rows_N = paths, column, groups, rows_N
        self._starts = np.cumsum(groups[:, 2]) - groups[:, 2]
        self._group_N = np.searchsorted(self._starts, rows_N, "right") - 1
        self._kept: OrderedDict[int, dict[int, Any]] = OrderedDict()

    def name(self, index: int) -> str:
        """Row, counted in its file, and file of an image."""
        file = self._groups[self._group_N[index], 0]
        first = self._starts[np.argmax(self._groups[:, 0] == file)]
        return f"row {self._rows_N[index] - first} of {readable_name(self.files[file])}"

    @contextmanager
    def open(self, index: int) -> Iterator[Image.Image]:
        """Open an image, for as long as the context is."""
        group, row = int(self._group_N[index]), int(self._rows_N[index])
        if row not in self._kept.get(group, {}):
            self._kept[group] = self._read(index)
            self._forget_others(group)
        self._kept.move_to_end(group)
        encoded = self._kept[group][row]
        path = self.files[self._groups[group, 0]]
        with _opened(encoded, path, self.name(index)) as file:
            yield open_image(file)

    def _read(self, index: int) -> dict[int, Any]:
        """Image ``index`` and those of its row group that come next, by row."""
        group = int(self._group_N[index])
        number, within, count = map(int, self._groups[group])
        path, start = self.files[number], int(self._starts[group])
        places = np.flatnonzero(self._group_N == group)
        rows = np.roll(self._rows_N[places], -int(np.searchsorted(places, index)))
        found, used = {}, 0
        check_regular(path)
        with reading(path, "parquet file"):
            file = pq.ParquetFile(path, buffer_size=_BUFFER_BYTES)
            size = _encoded_bytes(file.metadata.row_group(within), self._column) // max(count, 1)
            wanted = set(rows[: max(1, KEPT_BYTES // max(size, 1))].tolist())
            last, asked = max(wanted), int(self._rows_N[index])
            for batch in file.iter_batches(
                _ROWS_AT_A_TIME, row_groups=[within], columns=[self._column], use_threads=False
            ):
                for i in range(batch.num_rows):
                    if start + i in wanted:
                        encoded = _encoded(batch.column(0)[i].as_py())
                        if start + i == asked or used + len(encoded) <= KEPT_BYTES:
                            found[start + i] = encoded
                            used += len(encoded)
                start += batch.num_rows
                if start > last:
                    break
        if int(self._rows_N[index]) not in found:
            raise CorruptFileError(
                f"{readable_name(path)} has fewer rows than when its labels were read: it was "
                "changed meanwhile; read it again"
            )
        return found

    def _forget_others(self, group: int) -> None:
        size = lambda rows: sum(map(len, rows.values()))
        total = sum(map(size, self._kept.values()))
        for other in list(self._kept):
            if total <= KEPT_BYTES:
                return
            if other != group:
                total -= size(self._kept.pop(other))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict()}


def _encoded(value: Any) -> bytes | str:
    """The bytes of an image, or else its path; empty for neither."""
    if isinstance(value, dict):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    return b"" if value is None else value


@contextmanager
def _opened(encoded: bytes | str, parquet: str, name: str) -> Iterator[Any]:
    if not encoded:
        raise CorruptFileError(f"{name} has neither bytes nor a path of an image: leave it out")
    if isinstance(encoded, bytes):
        yield io.BytesIO(encoded)
        return
    if "://" in encoded:
        raise InvalidValueError(
            f"{name} holds the address {encoded!r} and no image: embed the images "
            "(embed_table_storage of datasets)"
        )
    path = os.path.join(os.path.dirname(parquet), encoded)
    if not os.path.exists(path):
        raise FileError(
            f"{name} holds the path {encoded!r} and no image, and there is no {readable_name(path)}"
            ": put it there, or embed the images (embed_table_storage of datasets)"
        )
    with open_regular(path) as file:
        yield file


def _encoded_bytes(group: pq.RowGroupMetaData, column: str) -> int:
    columns = (group.column(i) for i in range(group.num_columns))
    return sum(
        about.total_uncompressed_size
        for about in columns
        if about.path_in_schema.split(".")[0] == column.split(".")[0]
    )


def _files(spec: str) -> list[str]:
    """The files of a name: itself, those of a folder, or those of a pattern."""
    if os.path.isdir(spec):
        found = glob.glob(os.path.join(glob.escape(spec), "*.parquet"))
    elif os.path.exists(spec) or not glob.has_magic(spec):
        return [spec]
    else:
        found = glob.glob(spec, recursive=True)
    if not found:
        raise FileError(
            f"{readable_name(spec)} has no parquet file: name a folder or pattern of some"
        )
    shards: dict[str, dict[int, int]] = {}
    for path in found:
        if match := _SHARD.fullmatch(os.path.basename(path)):
            place = os.path.join(os.path.dirname(path), match[1])
            shards.setdefault(place, {})[int(match[2])] = int(match[3])
    if len(shards) > 1:
        names = sorted(map(readable_name, shards))
        raise InvalidValueError(
            f"{readable_name(spec)} has the parts of {' and '.join(names)}: name those of one, "
            f"such as {names[0]}-*.parquet"
        )
    for name, parts in shards.items():
        missing = sorted(set(range(max(parts.values()))) - parts.keys())
        if missing:
            raise FileError(
                f"{readable_name(spec)} lacks part {missing[0]} of the {max(parts.values())} of "
                f"{readable_name(name)}: put it there, or name the parts that are meant"
            )
    return sorted(found)
