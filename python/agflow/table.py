"""Tables of results: the base of statistics, scores, plans and predictions."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow._utils.files import open_regular
from agflow._utils.foreign_tables import form_of, has_checksum, read_foreign_table
from agflow.errors import CorruptFileError, InvalidValueError, UnknownLayerError

if TYPE_CHECKING:
    from typing_extensions import Self  # for type checkers alone: typing has it from 3.11 on


HTML_ROWS = 10


class Table:
    """An immutable Arrow record batch with metadata and a kind, which can be saved to a file.

    ``table["column"]`` is a numpy array, ``table.to_pandas()`` a DataFrame, and any Arrow tool
    takes the table itself: ``pyarrow.record_batch(table)``, ``polars.DataFrame(table)``. The way
    back is ``Scores(frame, metadata=scores.metadata)``: most tools drop the metadata. Texts of any
    Arrow encoding, chunks and categories are taken; what the kind needs is checked.

    Parameters
    ----------
    batch : a table of any Arrow tool, or a pandas DataFrame
    metadata : of the table that this one was made from, where a tool dropped it

    Attributes
    ----------
    batch : pyarrow.RecordBatch

    Raises
    ------
    DtypeError
        The object is no table, or a column has another type.
    InvalidValueError
        A column or metadata of the kind is missing, or a value cannot be right.
    CorruptFileError
        The table has a newer format.
    """

    kind: ClassVar[str] = ""

    def __init__(self, batch: Any, metadata: Mapping[str, str] | None = None):
        name = type(self).__name__
        plain = arrow.record_batch(batch, name)
        self.batch = _checked(plain, self.kind, metadata) if self.kind else plain

    @classmethod
    def of_any(cls, value: Any) -> Self:
        """``value`` itself where it is such a table, else the table made of it."""
        return value if isinstance(value, cls) else cls(value)

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Schema metadata: model, data fingerprint, seed, criterion, …"""
        return {
            key.decode(): value.decode()
            for key, value in (self.batch.schema.metadata or {}).items()
        }

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """Every column as a numpy array, by name."""
        return {
            name: self.batch.column(name).to_numpy(zero_copy_only=False)
            for name in self.batch.schema.names
        }

    def __getitem__(self, column: str) -> np.ndarray:
        """A column as a numpy array; InvalidValueError for one that the table does not have."""
        if column not in self.columns:
            raise InvalidValueError(
                f"column {column!r} is not in this {type(self).__name__}, "
                f"expected one of: {', '.join(self.columns)}"
            )
        return self.columns[column]

    def to_pandas(self) -> Any:
        """Convert to a pandas DataFrame with the same columns.

        Raises
        ------
        ImportError
            pandas is not installed.
        """
        try:
            import pandas  # noqa: F401 (no dependency: pyarrow's own error would not name the cure)
        except ImportError as error:
            raise ImportError(
                f"pandas cannot be imported ({error}), and to_pandas needs it: pip install pandas, "
                "or take numpy arrays from .columns"
            ) from error
        return self.batch.to_pandas()

    def save(self, path: str | os.PathLike) -> None:
        """Write an Arrow IPC file with a checksum; the file appears whole or not at all.

        Raises
        ------
        FileError
            The folder is missing or not writable, or the disk is full.
        """
        arrow.call(core().write_file, os.fspath(path), self.batch)

    @classmethod
    def load(cls, path: str | os.PathLike, metadata: Mapping[str, str] | None = None) -> Self:
        """Read a file written by :meth:`save` (from Python or by the ``agflow`` command).

        A file without agflow's checksum is another program's: an Arrow file, stream or feather
        file, parquet or csv, which is read by its columns as the class itself takes a table.

        A file of 64 MiB or more is not copied but mapped: its values are read from the file as they
        are used. Any program may replace it meanwhile by a new file of its name, as ``save`` does,
        but none may write into it or cut it short while the table is in use.

        Parameters
        ----------
        metadata : of the table that the file was made from, where another program dropped it

        Raises
        ------
        FileError
            The file is missing or not readable.
        CorruptFileError
            The checksum does not hold, or the file is of another kind.
        """
        foreign = _foreign_table(path)
        if foreign is None:
            foreign = arrow.call_for_batch(core().read_file, os.fspath(path), cls.kind)
        return cls(foreign, metadata=metadata)

    def __len__(self) -> int:
        return self.batch.num_rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.batch.equals(other.batch, check_metadata=True)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __arrow_c_array__(self, requested_schema=None):
        return self.batch.__arrow_c_array__(requested_schema)

    def __repr__(self) -> str:
        return f"<agflow.{type(self).__name__}: {self._summary()}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        header, rows = self._html_rows()
        lines = [_html_row("th", header), *(_html_row("td", row) for row in rows)]
        return (
            f"<b>{type(self).__name__}</b>: {html.escape(self._summary())}"
            f"<table>{''.join(lines)}</table>"
        )

    def _summary(self) -> str:
        """The contents in a few words, for ``repr`` and HTML."""
        return f"{len(self)} rows"

    def _html_rows(self) -> tuple[Sequence, Iterable[Sequence]]:
        """Header and rows of the HTML: the first rows."""
        shown = self.batch.slice(0, HTML_ROWS)
        return self.batch.schema.names, zip(*shown.to_pydict().values(), strict=True)


def _foreign_table(path: str | os.PathLike) -> pa.Table | None:
    """The table in a file of another program; None where agflow wrote the file, or nobody can
    read it, so that the core says what is wrong.
    """
    try:
        descriptor = open_regular(path, "file")
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        form = form_of(file.read(1 << 12))
        text = os.fspath(path).lower().endswith((".csv", ".tsv", ".txt"))
        if form is None or form == "csv" and not text or has_checksum(file):
            return None
        try:
            return read_foreign_table(file, form)
        except Exception as error:  # pyarrow raises whatever a damaged file runs it into
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise CorruptFileError(
                f"{os.fspath(path)} has no checksum of agflow's and is not a readable {form} "
                f"either ({reason:.160}): write it again"
            ) from error


def _checked(
    batch: pa.RecordBatch, kind: str, metadata: Mapping[str, str] | None
) -> pa.RecordBatch:
    """The batch as this version has its kind: an older format is upgraded, an edited plan priced
    anew. The core's own readers check it.
    """
    known = {**(batch.schema.metadata or {}), **(metadata or {})}
    if "agflow.kind" not in known and b"agflow.kind" not in known:
        known["agflow.kind"] = kind
    batch = batch.replace_schema_metadata(known)
    changed = arrow.call_for_change(core().check_table, kind, batch)
    return batch if changed is None else changed


def _html_row(tag: str, cells: Iterable) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(str(cell))}</{tag}>' for cell in cells)}</tr>"


@dataclass(frozen=True)
class LayerRows:
    """The rows of one layer in a table of units.

    Attributes
    ----------
    name, group : of the layer
    first : its first row
    units : how many rows it has
    """

    name: str
    group: str
    first: int
    units: int


class UnitTable(Table):
    """A table with one row per prunable unit, grouped by layer, units ascending."""

    @cached_property
    def layers(self) -> list[LayerRows]:
        """Layers in forward order."""
        names, groups = self.columns["layer"], self.columns["group"]
        starts = (
            np.flatnonzero(np.r_[True, (names[1:] != names[:-1]) | (groups[1:] != groups[:-1])])
            if len(self)
            else []
        )
        ends = np.r_[starts[1:], len(self)] if len(self) else []
        return [
            LayerRows(str(names[a]), str(groups[a]), int(a), int(b - a))
            for a, b in zip(starts, ends, strict=True)
        ]

    def rows_of(self, layer: str) -> slice:
        """The rows of a layer; UnknownLayerError for one that the table does not have."""
        for rows in self.layers:
            if rows.name == layer:
                return slice(rows.first, rows.first + rows.units)
        known = ", ".join(rows.name for rows in self.layers)
        raise UnknownLayerError(f"layer {layer!r} is not in this table; it has {known}")

    @property
    def model(self) -> str:
        """Name of the dense model."""
        return self.metadata["agflow.model"]

    @property
    def model_macs(self) -> int:
        """MACs per image of the dense model, at :attr:`image_size`."""
        return int(self.metadata["agflow.model_macs"])

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width, pixels, at which the dense model was measured; None for its own.

        It is the ``image_size`` of :func:`agflow.calibrate`.
        """
        text = self.metadata.get("agflow.image_size")
        if text is None:
            return None
        height, width = map(int, text.split("x"))
        return height, width

    def _summary(self) -> str:
        return f"{self.model}, {len(self.layers)} layers, {len(self)} units"

    def _html_rows(self) -> tuple[Sequence, Iterable[Sequence]]:
        rows = ((rows.name, rows.group, rows.units) for rows in self.layers)
        return ("layer", "group", "units"), rows
