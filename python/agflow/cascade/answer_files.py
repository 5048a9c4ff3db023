"""Files of answers that other programs wrote, read by column names: npy, npz, Arrow, parquet, csv.

A file of agflow's own has its checksum verified. What is no such file, is damaged or claims more
than it has is one error that names it.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow._utils.foreign_tables import form_of, has_checksum, read_foreign_table
from agflow.data.npy_arrays import NpyArray, npz_archive
from agflow.data.opening import open_regular, readable_name, reading
from agflow.errors import CorruptFileError, InvalidValueError

Content = np.ndarray | dict[str, np.ndarray] | pa.Table
"""What a file holds: one array, or columns by name."""

LABELS = ("label", "labels", "target", "targets", "class", "y")
ALONE = {"label": LABELS, "light_prior": ("light_prior", "confidence", "prior")}
"""Roles of one column, with the names that it may have."""
FORMS = "npy, npz, parquet, Arrow (file, stream or feather) and csv"


def read_answer_file(spec: str | os.PathLike, role: str) -> Content:
    """Read what a file says about a role.

    Parameters
    ----------
    spec : FILE, or FILE:COLUMN with a column, several between commas, or a pattern such as
        ``light_*``; of an npz file the array's name
    role : light, heavy, label or light_prior; without COLUMN the columns are found by it

    Raises
    ------
    FileError, CorruptFileError
        The file is missing, damaged or of no such form.
    InvalidValueError
        It has no such column, or none is found.
    """
    path, asked = _split(os.fspath(spec))
    content = read_content(path)
    if isinstance(content, np.ndarray):
        if asked:
            raise InvalidValueError(
                f"{readable_name(path)} holds one array and no column {asked!r}: leave :{asked} out"
            )
        return content
    names = [*content] if isinstance(content, dict) else content.schema.names
    return select(content, columns_of(names, role, path, asked))


def select(content: pa.Table | dict[str, np.ndarray], names: Sequence[str]) -> Content:
    """Some columns of a file; of one, which says no name of a class, the values alone."""
    if isinstance(content, dict):
        return content[names[0]] if len(names) == 1 else {name: content[name] for name in names}
    chosen = content.select(names)
    return {names[0]: chosen.column(0)} if len(names) == 1 else chosen


def columns_of(names: Sequence[str], role: str, path: str, asked: str = "") -> list[str]:
    """The columns that are asked for, or that have the names of a role.

    Raises
    ------
    InvalidValueError
        There is none, or it is not clear which one.
    """
    if len(set(names)) < len(names):
        raise InvalidValueError(
            f"{readable_name(path)} has two columns of one name among {', '.join(names):.160}: "
            "rename them"
        )
    if asked:
        wanted = [part.strip() for part in asked.split(",")]
        found = [one for part in wanted for one in fnmatch.filter(names, part)]
        found = found if all(fnmatch.filter(names, part) for part in wanted) else []
    elif role == "label":
        found = next(
            ([name] for name in LABELS if name in names), [*names] if len(names) == 1 else []
        )
    elif role == "light_prior":
        known = ("light_prior", "confidence", "prior")
        found = next(
            ([name] for name in known if name in names), [*names] if len(names) == 1 else []
        )
    else:
        found = _answers_of(names, role)
    if not found:
        missing = f"no column {asked!r}" if asked else f"no column of the role {role}"
        raise InvalidValueError(
            f"{readable_name(path)} has {missing}, it has {', '.join(map(str, names)):.160}: "
            f"name one as FILE:COLUMN"
        )
    return found


def _answers_of(names: Sequence[str], role: str) -> list[str]:
    """The columns of an expert: by its name, or all where no column has the name of a role."""
    whole = (role, f"{role}_logits", f"{role}_prediction", f"{role}_predictions", "logits")
    for name in whole:
        if name in names:
            return [name]
    begun = [name for name in names if name.startswith((f"{role}_", f"{role}."))]
    begun = [name for name in begun if name != "light_prior"]
    if begun or any(name.startswith(("light", "heavy", "prior_")) for name in names):
        return begun
    return [name for name in names if name not in LABELS]


def _split(spec: str) -> tuple[str, str]:
    """FILE and COLUMN; a file may have a colon in its name."""
    if os.path.exists(spec) or ":" not in spec:
        return spec, ""
    path, _, column = spec.rpartition(":")
    return path, column


def read_content(path: str | os.PathLike) -> Content:
    """Read all that a file holds; its form is known by its first bytes.

    Raises
    ------
    FileError, CorruptFileError
        The file is missing, damaged or of no such form.
    """
    with open_regular(path) as file:
        head = file.read(1 << 12)
        file.seek(0)
        for mark, read in ((b"\x93NUMPY", _npy), (b"PK", _npz)):
            if head.startswith(mark):
                with reading(path, f"{read.__name__[1:]} file"):
                    return read(file, path)
        form = form_of(head)
        if form is None:
            raise CorruptFileError(
                f"{readable_name(path)} is none of the files that are read, {FORMS}: write the "
                "answers as one of these, such as by numpy.save"
            )
        if form == "Arrow file" and has_checksum(file):  # which the core verifies
            batch = arrow.call_for_batch(core().read_file, os.fspath(path), "")
            return pa.Table.from_batches([batch])
        with reading(path, form if "Arrow" in form else f"{form} file"):
            table = read_foreign_table(file, form)
            return _nameless(table) if form == "csv" and table.schema.names[:1] == ["f0"] else table


def _npy(file: BinaryIO, path: str | os.PathLike) -> Content:
    size = os.fstat(file.fileno()).st_size
    return _fielded(NpyArray.of_stream(file, size, os.path.basename(path)).read_all())


def _npz(_: BinaryIO, path: str | os.PathLike) -> Content:
    found = {}
    with npz_archive(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if not names:
            raise ValueError("it holds no numpy arrays; save those of a model with numpy.savez")
        for name in (name.removesuffix(".npy") for name in names):
            with NpyArray.member(archive, name, path) as array:
                found[name] = array.read_all()
    return found if len(found) > 1 else _fielded(next(iter(found.values())))


def _fielded(array: np.ndarray) -> Content:
    """An array, or the columns of a structured one."""
    fields = array.dtype.names
    return array if fields is None else {name: array[name] for name in fields}


def _nameless(table: pa.Table) -> np.ndarray:
    """The columns of a csv file without names as one array."""
    columns = [column.to_numpy() for column in table.columns]
    if any(column.dtype.kind not in "iuf" for column in columns):
        raise ValueError("it has no line of names, and values that are no numbers")
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
