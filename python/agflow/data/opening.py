"""Files of images and labels: regular files only, and one error for all that is not readable."""

from __future__ import annotations

import os
import pathlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from agflow.errors import AgflowError, CorruptFileError, FileError


def check_regular(path: str | os.PathLike) -> None:
    """Refuse what is no regular file: reading a pipe or a device may wait, or never end.

    Raises
    ------
    FileError
        The file is missing, cannot be looked at, or is a folder, a pipe or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise missing_file(path) from error
    if not stat.S_ISREG(mode):
        raise FileError(
            f"{readable_name(path)} is no regular file but a {_kind(mode)}: give a file that is on "
            "disk as a whole"
        )


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """Open a regular file to read its bytes.

    Raises
    ------
    FileError
        As :func:`check_regular`, or the file may not be read.
    """
    check_regular(path)
    try:
        return open(path, "rb")
    except OSError as error:
        raise missing_file(path) from error


@contextmanager
def reading(path: str | os.PathLike, kind: str) -> Iterator[None]:
    """While open, turn every foreign error into one sentence that names the file.

    Readers of foreign formats raise whatever their code runs into: errors of zlib, struct or the
    interpreter, a MemoryError for a header that claims too much. So all are taken.

    Raises
    ------
    FileError
        The file is missing or may not be read.
    CorruptFileError
        It is not a readable file of this kind.
    """
    try:
        yield
    except AgflowError:
        raise
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise missing_file(path) from error
    except Exception as error:
        raise CorruptFileError(
            f"{readable_name(path)} is not a readable {kind} ({reason(error)})"
        ) from error


def reason(error: BaseException) -> str:
    """The first line of an error's text, or its type where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def readable_name(path: str | os.PathLike) -> str:
    """A path as text that can be printed, whatever bytes its name has."""
    return os.fsencode(path).decode(errors="replace")


def missing_file(path: str | os.PathLike) -> FileError:
    """The error for a file that is not there or may not be read."""
    return FileError(
        f"{readable_name(path)} is missing or not a readable file: check the path and its rights "
        f"(working folder {pathlib.Path.cwd()})"
    )


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    return "pipe or socket" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else "device"
