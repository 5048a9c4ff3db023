"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from agflow.errors import CorruptFileError, FileError


@contextmanager
def atomic_directory(folder: str | os.PathLike, kind: str, marker: str) -> Iterator[pathlib.Path]:
    """A new folder to fill, which gets the name ``folder`` when the block ends without an error.

    After an error it is removed, and what had the name before is still there.

    Parameters
    ----------
    kind : such as "an expert folder", for errors
    marker : name of a file that every folder of this kind holds: an older folder with it is
        replaced, any other folder is left alone

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
    with file_errors(f"{kind} {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
            made = pathlib.Path(scratch) / "new"
            made.mkdir()
            yield made
            _put_in_place(made, folder, pathlib.Path(scratch) / "old")


@contextmanager
def atomic_file(path: str | os.PathLike, kind: str) -> Iterator[pathlib.Path]:
    """A path to write to; the file there gets the name ``path`` when the block ends without an
    error, and is removed after one.

    The path is the same every time and keeps the suffix: ``.report.unfinished.json`` beside
    ``report.json``. What a killed process leaves there is overwritten by the next one.

    Parameters
    ----------
    kind : such as "checkpoint", for errors

    Raises
    ------
    FileError
        The file cannot be written; an older file of that name is still there.
    """
    path = pathlib.Path(path)
    unfinished = path.with_name(f".{path.stem}.unfinished{path.suffix}")
    with file_errors(f"{kind} {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def write(path: pathlib.Path, content: bytes) -> None:
    """Write a file, down to the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_bytes(path: str | os.PathLike, kind: str, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    A pipe or a device is refused before anything is read from it, so that nobody waits for it.

    Parameters
    ----------
    kind : such as "router", for errors

    Raises
    ------
    FileError
        The file is missing, cannot be read or is no regular file.
    CorruptFileError
        It is larger.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise FileError(
                    f"{kind} {path} is no regular file; give the name of one, not of a folder, "
                    "a pipe or a device"
                )
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"{kind} {path} cannot be read: {error.strerror or error}; check the path and the "
            "rights"
        ) from error
    if len(content) > limit:
        raise CorruptFileError(
            f"{kind} {path} is larger than {limit} bytes, so it is not one that agflow wrote"
        )
    return content


@contextmanager
def file_errors(thing: str) -> Iterator[None]:
    """Turn the operating system's errors into FileError with the name of the thing."""
    try:
        yield
    except FileError:
        raise
    except OSError as error:
        raise FileError(
            f"{thing} cannot be written: {error.strerror or error}; "
            "check the path, the rights and the free space"
        ) from error


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
