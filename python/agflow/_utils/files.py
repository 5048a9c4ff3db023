"""Files that appear whole or not at all, and files that are read with a limit."""

from __future__ import annotations

import os
import pathlib
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from agflow._utils.scratch import scratch_in
from agflow.errors import AgflowError, CorruptFileError, FileError

_OPEN_FILES = re.compile(r"/proc/[^/]+(/task/[^/]+)?/fd")


@contextmanager
def atomic_file(path: str | os.PathLike, kind: str) -> Iterator[pathlib.Path]:
    """A path to write to; the file there gets the name ``path`` when the block ends without an
    error, and is removed after one.

    It has the name of ``path`` in a folder of its own, so that two writers never meet: the last one
    wins. A link is followed. What a killed process left is collected.

    Parameters
    ----------
    kind : such as "checkpoint", for errors

    Raises
    ------
    FileError
        The file cannot be written, or the name is that of a folder, a pipe or a device; what had
        the name before is still there.
    """
    with file_errors(f"{kind} {path}"):
        target = file_target(path, kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_in(target.parent) as scratch:
            made = scratch / target.name
            yield made
            if target.exists():
                made.chmod(stat.S_IMODE(target.stat().st_mode))
            sync(made)
            os.replace(made, target)
            sync(target.parent)


def check_file(path: str | os.PathLike, kind: str) -> None:
    """Refuse a file that could not be written, before the work rather than after it.

    Raises
    ------
    FileError
        As :func:`file_target`, or nothing can be written there.
    """
    with file_errors(f"{kind} {path}"):
        try_to_write(file_target(path, kind))


def try_to_write(target: pathlib.Path) -> None:
    """OSError if nothing can be written beside ``target``, in folders yet to be made if need be."""
    with scratch_in(next(parent for parent in target.parents if parent.exists())):
        pass


def file_target(path: str | os.PathLike, kind: str) -> pathlib.Path:
    """The place where a file named ``path`` would be written, behind all links.

    Raises
    ------
    FileError
        The name is that of a folder, a pipe or a device, which a file must not replace.
    """
    with file_errors(f"{kind} {path}"):
        path = pathlib.Path(path)
        regular = True
        with suppress(FileNotFoundError):
            regular = stat.S_ISREG(path.stat().st_mode)
        target = path.absolute()
        while regular:
            folder = os.path.realpath(target.parent)
            # What is found there is open, such as /dev/stdout, and others write to it.
            regular = _OPEN_FILES.fullmatch(folder) is None
            target = pathlib.Path(folder, target.name)
            if not target.is_symlink():
                break
            target = target.parent / os.readlink(target)
        if not regular:
            raise FileError(
                f"{kind} {path} is no regular file, so it is not replaced; give the name of a file"
            )
        return target


def write_text(path: str | os.PathLike, text: str, kind: str) -> None:
    """Write a text file, which appears whole or not at all; see :func:`atomic_file`."""
    with atomic_file(path, kind) as made:
        made.write_text(text, encoding="utf-8")


def read_bytes(path: str | os.PathLike, kind: str, limit: int | None = None) -> bytes:
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
    with read_errors(f"{kind} {path}"):
        descriptor = open_regular(path, kind)
        with open(descriptor, "rb") as file:
            content = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(content) > limit:
        raise CorruptFileError(
            f"{kind} {path} is larger than {limit} bytes, so it is not one that agflow wrote"
        )
    return content


def open_regular(path: str | os.PathLike, kind: str) -> int:
    """A descriptor of a regular file, to read from.

    Raises
    ------
    FileError
        It is a folder, a pipe or a device.
    OSError
        It cannot be opened.
    """
    # Without O_NONBLOCK the opening of a pipe waits until somebody writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(
            f"{kind} {path} is no regular file; give the name of one, not of a folder, a pipe or "
            "a device"
        )
    return descriptor


def sync(path: pathlib.Path) -> None:
    """Wait until a file, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_errors(thing: str) -> Iterator[None]:
    """Turn the operating system's errors into FileError with the name of the thing to write."""
    try:
        yield
    except AgflowError:
        raise
    except OSError as error:
        raise FileError(
            f"{thing} cannot be written: {error.strerror or error}; "
            "check the path, the rights and the free space"
        ) from error


@contextmanager
def read_errors(thing: str) -> Iterator[None]:
    """Turn the operating system's errors into FileError with the name of the thing to read."""
    try:
        yield
    except AgflowError:
        raise
    except OSError as error:
        raise FileError(
            f"{thing} cannot be read: {error.strerror or error}; check the path and the rights"
        ) from error
