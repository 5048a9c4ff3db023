"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from agflow.errors import FileError


@contextmanager
def atomic_directory(folder: str | os.PathLike, kind: str, marker: str) -> Iterator[pathlib.Path]:
    """A new folder to fill, which takes the name ``folder`` when the block ends without an error, and else vanishes.

    Parameters
    ----------
    kind : such as "an expert folder", for errors
    marker : name of a file that every folder of this kind holds: an older one is replaced, any other folder is left alone

    Raises
    ------
    FileError
        The folder holds something else or cannot be written.
    """
    folder = pathlib.Path(folder)
    if (
        folder.exists()
        and not (folder / marker).exists()
        and (not folder.is_dir() or any(folder.iterdir()))
    ):
        raise FileError(
            f"{folder} exists and is not {kind}, so it is not replaced; choose another name"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            made = pathlib.Path(scratch) / "new"
            made.mkdir()
            yield made
            _put_in_place(made, folder, pathlib.Path(scratch) / "old")
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            f"{kind} {folder} cannot be written: {error.strerror}; check the path, the rights and the free space"
        ) from error


def write(path: pathlib.Path, content: bytes) -> None:
    """Write a file, down to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _put_in_place(made: pathlib.Path, folder: pathlib.Path, aside: pathlib.Path) -> None:
    """Rename ``made`` to ``folder``; a folder that was there comes back if that fails."""
    replaces = folder.exists()
    if replaces:
        folder.rename(aside)
    try:
        made.rename(folder)
    except OSError:
        if replaces:
            aside.rename(folder)
        raise
    if replaces:
        shutil.rmtree(aside)
