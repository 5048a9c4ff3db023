"""Folders of agflow's own: they appear whole, and replace nothing that is not agflow's."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import pathlib
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from agflow._utils.files import file_errors, sync, try_to_write
from agflow._utils.json_file import FORMAT, Keys, json_bytes, read_json
from agflow._utils.scratch import OLD, collect_scratch, scratch_in
from agflow.errors import CorruptFileError, FileError

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_SUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class FolderKind:
    """What a folder of agflow's is known by.

    Attributes
    ----------
    name : such as "an expert folder", for errors
    marker : its JSON file, which lists every other file with its digest as ``sha256``; the digest
        of a file that is still under way is "", and the name of a folder that is, with a slash,
        stands for all in it
    keys : of the marker, ``sha256`` included, by format
    earlier : names that the files of a folder of an earlier format, which lists none, may have
    """

    name: str
    marker: str
    keys: Mapping[int, Keys]
    earlier: Collection[str]

    def read(self, folder: pathlib.Path) -> dict[str, Any]:
        """The content of the marker; ``sha256`` is a dict from names to hexadecimal digests.

        Raises
        ------
        FileError, CorruptFileError
            As :func:`agflow._utils.json_file.read_json`.
        """
        content = read_json(folder / self.marker, "file", self.keys)
        listed = content.get("sha256", {})
        if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
            raise CorruptFileError(
                f"sha256 in {folder / self.marker} is no object of names and digests; save the "
                "folder again"
            )
        return content

    def seal(
        self, folder: pathlib.Path, content: Mapping[str, Any], files: Iterable[str] | None = None
    ) -> None:
        """Write the marker of a folder whose other files, or these of them, are there."""
        names = files_of(folder) if files is None else files
        sha256 = {name: sha256_of(folder / name) for name in names}
        raw = json_bytes({**content, "sha256": sha256}, self.marker)
        (folder / self.marker).write_bytes(raw)

    def fault(self, folder: pathlib.Path) -> str | None:
        """Why a folder must not be replaced; None where it is empty or agflow wrote all of it."""
        entries = set(_entries(folder))
        if not entries:
            return None
        try:
            content = self.read(folder)
        except (FileError, CorruptFileError):
            return f"exists and is not {self.name}"
        listed = content["sha256"] if content["format"] >= FORMAT else dict.fromkeys(self.earlier)
        known = {self.marker, *listed}
        known |= {
            f"{parent}/" for name in listed for parent in map(str, pathlib.Path(name).parents)
        }
        under_way = tuple(name for name in listed if name.endswith("/"))
        for name in sorted(entries):
            if name not in known and not name.startswith(under_way):
                return f"holds {name}, which agflow did not put there"
            digest = listed.get(name)
            if digest and sha256_of(folder / name) != digest:
                return f"holds {name}, which is not as agflow wrote it"
        return None


@contextmanager
def atomic_folder(folder: str | os.PathLike, kind: FolderKind) -> Iterator[pathlib.Path]:
    """A new folder to fill, which gets the name ``folder`` when the block ends without an error.

    It takes the place of an older one of the same kind in one exchange: at every moment the name
    leads to the old folder or to the new one, whole. After an error it is removed. A link is
    followed.

    Raises
    ------
    FileError
        As :func:`folder_target`, or the folder cannot be written; the older one is still there.
    """
    with file_errors(f"{kind.name} {folder}"):
        target = folder_target(folder, kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_in(target.parent) as scratch:
            made = scratch / "new" / target.name
            made.mkdir(parents=True)
            yield made
            for root, _, files in os.walk(made):
                for path in (root, *(os.path.join(root, file) for file in files)):
                    sync(pathlib.Path(path))
            folder_target(folder, kind)  # once more: somebody may have put something there
            _put_in_place(made, target, scratch)
            sync(target.parent)


def check_folder(folder: str | os.PathLike, kind: FolderKind) -> None:
    """Refuse a folder that could not be written, before the work rather than after it.

    Raises
    ------
    FileError
        As :func:`folder_target`, or nothing can be written there.
    """
    with file_errors(f"{kind.name} {folder}"):
        try_to_write(folder_target(folder, kind))


def folder_target(folder: str | os.PathLike, kind: FolderKind) -> pathlib.Path:
    """The place where a folder named ``folder`` would be written, behind all links.

    Raises
    ------
    FileError
        The name is that of a file, of the current folder or a mount point, or of a folder with
        anything in it that agflow did not write.
    """
    with file_errors(f"{kind.name} {folder}"):
        target = pathlib.Path(os.path.realpath(folder))
        try:
            found = pathlib.Path(folder).stat()
        except FileNotFoundError:
            return target
        if not stat.S_ISDIR(found.st_mode):
            fault = f"exists and is not {kind.name}"
        elif target in (here := pathlib.Path.cwd(), *here.parents):
            fault = "is the current folder or one above it"
        elif os.path.ismount(target):
            fault = "is a mount point"
        else:
            fault = kind.fault(target)
        if fault:
            raise FileError(f"{folder} {fault}, so it is not replaced; choose another name")
        return target


def files_of(folder: pathlib.Path) -> list[str]:
    """The files in a folder and in those below it, as names with slashes, sorted."""
    return sorted(name for name in _entries(folder) if not name.endswith("/"))


def sha256_of(path: pathlib.Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _entries(folder: pathlib.Path, prefix: str = "") -> Iterator[str]:
    """Names of all that a folder holds, those of folders with a slash; a link is not followed.

    What is neither a file nor a folder has a slash before its name, so that no list holds it.
    """
    collect_scratch(folder)
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield f"{name}/"
                yield from _entries(folder / entry.name, f"{name}/")
            else:
                yield name if entry.is_file(follow_symlinks=False) else f"/{name}"


def _put_in_place(made: pathlib.Path, target: pathlib.Path, scratch: pathlib.Path) -> None:
    if target.exists():
        made.chmod(stat.S_IMODE(target.stat().st_mode))
        if _exchange(made, target):
            return
        # From here the scratch folder tells the next writer what to put back.
        aside = scratch / OLD
        aside.mkdir()
        target.rename(aside / target.name)
    made.rename(target)


def _exchange(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Let two folders change their names in one step; False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_SUPPORTED:
        return False
    raise OSError(number, os.strerror(number))
