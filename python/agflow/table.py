"""Arrow record batches with a kind, metadata and a file: the base of statistics, scores, plans and predictions."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import UnknownLayerError

if TYPE_CHECKING:
    from typing import Self


class Table:
    """An immutable Arrow record batch whose schema metadata names its kind.

    Any Arrow tool can take it: ``pyarrow.record_batch(table)``, ``polars.DataFrame(table)``.
    """

    kind: ClassVar[str]

    def __init__(self, batch: pa.RecordBatch):
        self.batch = batch

    @cached_property
    def metadata(self) -> dict[str, str]:
        """Schema metadata: model, data fingerprint, seed, criterion, …"""
        return {
            key.decode(): value.decode()
            for key, value in (self.batch.schema.metadata or {}).items()
        }

    @cached_property
    def columns(self) -> dict[str, np.ndarray]:
        """Every column as a numpy array."""
        return {
            name: self.batch.column(name).to_numpy(zero_copy_only=False)
            for name in self.batch.schema.names
        }

    def save(self, path: str | os.PathLike) -> None:
        """Write an Arrow IPC file with a checksum; the file appears whole or not at all.

        Raises
        ------
        FileError
            The folder is missing or not writable, or the disk is full.
        """
        arrow.call(core().write_file, os.fspath(path), self.batch)

    @classmethod
    def load(cls, path: str | os.PathLike) -> Self:
        """Read a file written by :meth:`save` (from Python or by the ``agflow`` command).

        Raises
        ------
        FileError
            The file is missing or not readable.
        CorruptFileError
            The checksum does not hold, or the file is of another kind.
        """
        return cls(arrow.call_for_batch(core().read_file, os.fspath(path), cls.kind))

    def __len__(self) -> int:
        return self.batch.num_rows

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.batch.equals(other.batch, check_metadata=True)

    __hash__ = None

    def __arrow_c_array__(self, requested_schema=None):
        return self.batch.__arrow_c_array__(requested_schema)

    def __repr__(self) -> str:
        return f"<agflow.{type(self).__name__}: {len(self)} rows>"


@dataclass(frozen=True)
class LayerRows:
    """Where a layer's units stand in a table of units."""

    name: str
    group: str
    first: int
    units: int


class UnitTable(Table):
    """A table with one row per prunable unit, grouped by layer, units ascending."""

    @cached_property
    def layers(self) -> list[LayerRows]:
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
        for rows in self.layers:
            if rows.name == layer:
                return slice(rows.first, rows.first + rows.units)
        known = ", ".join(rows.name for rows in self.layers)
        raise UnknownLayerError(f"layer {layer!r} is not in this table; it has {known}")

    @property
    def model(self) -> str:
        return self.metadata["agflow.model"]

    @property
    def model_macs(self) -> int:
        """MACs per image of the dense model, at :attr:`image_size`."""
        return int(self.metadata["agflow.model_macs"])

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width, pixels, at which the dense model was measured (``calibrate(image_size=…)``); None at its own."""
        text = self.metadata.get("agflow.image_size")
        return None if text is None else tuple(map(int, text.split("x")))

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{rows.name}</td><td>{rows.group}</td><td>{rows.units}</td></tr>"
            for rows in self.layers
        )
        return (
            f"<b>{type(self).__name__}</b> of {self.model}, {len(self)} units"
            f"<table><tr><th>layer</th><th>group</th><th>units</th></tr>{rows}</table>"
        )
