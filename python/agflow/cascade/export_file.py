"""The file export.json of an exported cascade, read without torch: an export is served without."""

from __future__ import annotations

import hashlib
import pathlib
from typing import Any

from agflow._utils.files import read_bytes
from agflow._utils.folders import FolderKind
from agflow._utils.json_file import Keys
from agflow.cascade.file_names import (
    CLASS_NAMES,
    COSTS,
    ENDINGS,
    EXPORT_FILE,
    FILES,
    HEAVY_ROLE,
    LIGHT_ROLE,
    MAX_BATCH,
    PREFIX_ROLE,
    README_FILE,
    ROUTER_FILE,
)
from agflow.errors import CorruptFileError

EXPORT_FOLDER = FolderKind(
    "an export of a cascade",
    EXPORT_FILE,
    keys={4: Keys((FILES, "sha256"), (CLASS_NAMES, MAX_BATCH, COSTS)), 1: Keys((FILES,))},
    earlier=(
        *(
            role + ending
            for role in (PREFIX_ROLE, LIGHT_ROLE, HEAVY_ROLE)
            for ending in ENDINGS.values()
        ),
        *(ROUTER_FILE, README_FILE),
    ),
)


def read_export(folder: pathlib.Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Read export.json, and check that the files which it names are those that were written.

    Returns
    -------
    the file of each role (prefix, where the experts share one, light and heavy), and the content

    Raises
    ------
    FileError, CorruptFileError
        A file is missing or damaged.

    Examples
    --------
    >>> import pathlib
    >>> from agflow.cascade.export_file import read_export
    >>> read_export(pathlib.Path("nowhere"))
    Traceback (most recent call last):
    ...
    agflow.errors.FileError: file nowhere/export.json cannot be read: ...
    """
    content = EXPORT_FOLDER.read(folder)
    _check_known(folder, content)
    files = _files(folder, content[FILES])
    for name in (*files.values(), ROUTER_FILE):
        digest = hashlib.sha256(read_bytes(folder / name, "file")).hexdigest()
        if content.get("sha256", {}).get(name, digest) != digest:
            raise CorruptFileError(
                f"{folder / name} is damaged or of another cascade: its SHA-256 is not the one in "
                f"{EXPORT_FILE}; copy or export the cascade again"
            )
    return files, content


def _check_known(folder: pathlib.Path, content: dict[str, Any]) -> None:
    """Check what may be said of the cascade, for kinds of values."""
    max_batch, names, costs = map(content.get, (MAX_BATCH, CLASS_NAMES, COSTS))
    for key, fits in {
        MAX_BATCH: max_batch is None or (type(max_batch) is int and max_batch > 0),
        CLASS_NAMES: names is None
        or (isinstance(names, list) and all(isinstance(name, str) for name in names)),
        COSTS: costs is None
        or (isinstance(costs, dict) and {"light", "heavy", "shared", "unit"} <= set(costs)),
    }.items():
        if not fits:
            raise CorruptFileError(
                f"{key} in {folder / EXPORT_FILE} is {content[key]!r:.60}, which agflow did not "
                "write: export the cascade again"
            )


def _files(folder: pathlib.Path, entries: Any) -> dict[str, str]:
    """The file of each role, by the part of its name before the first dot."""
    names = [entry.get("file") for entry in entries if isinstance(entry, dict)]
    found = {name.partition(".")[0]: name for name in map(str, names) if "/" not in name}
    if {LIGHT_ROLE, HEAVY_ROLE} - set(found) or set(found) - {LIGHT_ROLE, HEAVY_ROLE, PREFIX_ROLE}:
        raise CorruptFileError(
            f"{FILES} in {folder / EXPORT_FILE} are {', '.join(map(str, names)) or 'none'}, "
            "expected those of a light and of a heavy expert: export the cascade again"
        )
    return found
