"""Scratch folders beside what they will become: known by their name, collected with their owner."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# The Go core's temporary files have such names, too, and hold the same lock.
_NAME = re.compile(r"\.agflow-[0-9a-f]{16}")
OLD = "old"


@contextmanager
def scratch_in(parent: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new folder in ``parent``, removed at the end; first, those of dead processes are.

    The owner holds a lock on the folder, which ends with the process however it ends. What lies in
    the folder's own folder ``old`` gets its name in ``parent`` back where that is missing.
    """
    collect_scratch(parent)
    scratch, descriptor = _make(parent)
    try:
        yield scratch
    finally:
        _clear(scratch)
        os.close(descriptor)


def collect_scratch(parent: pathlib.Path) -> None:
    """Remove what dead processes left in ``parent``: entries with our name that nobody locks."""
    with suppress(OSError):  # a folder that cannot be listed, or an entry that another one collects
        for name in filter(_NAME.fullmatch, os.listdir(parent)):
            scratch = parent / name
            with suppress(OSError):
                descriptor = os.open(
                    scratch, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                )
                try:
                    if os.fstat(descriptor).st_uid == os.geteuid():
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        _clear(scratch)
                finally:
                    os.close(descriptor)


def lock_folder(descriptor: int) -> bool:
    """Lock an open folder until the descriptor is closed; False where another one holds it.

    Some network file systems know no such locks; nobody is kept out there.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _make(parent: pathlib.Path) -> tuple[pathlib.Path, int]:
    while True:
        scratch = parent / f".agflow-{secrets.token_hex(8)}"
        scratch.mkdir(mode=0o700)
        with suppress(FileNotFoundError):  # collected by another one before it was locked
            descriptor = os.open(scratch, os.O_RDONLY | os.O_CLOEXEC)
            if lock_folder(descriptor) and os.path.samestat(os.fstat(descriptor), scratch.stat()):
                return scratch, descriptor
            os.close(descriptor)


def _clear(scratch: pathlib.Path) -> None:
    if scratch.is_dir():
        with suppress(FileNotFoundError):
            for old in (scratch / OLD).iterdir():
                if not os.path.lexists(scratch.parent / old.name):
                    old.rename(scratch.parent / old.name)
        shutil.rmtree(scratch, ignore_errors=True)
    else:
        scratch.unlink()
