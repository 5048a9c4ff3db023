"""A cascade exported for other runtimes: what its folder holds, and how it is loaded again."""

from __future__ import annotations

import pathlib

from agflow._utils.files import file_errors
from agflow._utils.folders import FolderKind, sha256_of
from agflow._utils.json_file import Keys
from agflow.cascade.cascade import Cascade
from agflow.cascade.readme import README_FILE, ROUTER_FILE
from agflow.cascade.router import Router
from agflow.errors import AgflowError, CorruptFileError, UnsupportedModelError
from agflow.models.exported import ONNX_ENDING, ExportedExpert

EXPORT_FILE = "export.json"
LIGHT_ROLE, HEAVY_ROLE, PREFIX_ROLE = "light", "heavy", "prefix"
ENDINGS = {"onnx": ONNX_ENDING, "torch": ".pt2"}

EXPORT_FOLDER = FolderKind(
    "an export of a cascade",
    EXPORT_FILE,
    keys={4: Keys(("files", "sha256")), 1: Keys(("files",))},
    earlier=(
        *(
            role + ending
            for role in (PREFIX_ROLE, LIGHT_ROLE, HEAVY_ROLE)
            for ending in ENDINGS.values()
        ),
        *(ROUTER_FILE, README_FILE),
    ),
)


def load_exported_cascade(folder: pathlib.Path) -> Cascade:
    """Load the cascade of a folder that :func:`agflow.exporting.export_cascade` made as ONNX.

    Raises
    ------
    FileError, CorruptFileError
        A file is missing or damaged.
    UnsupportedModelError
        The export is of torch's format, or its experts share blocks.

    Examples
    --------
    >>> import agflow, pathlib, tempfile, torch
    >>> from agflow.cascade.exported_folder import load_exported_cascade
    >>> heavy, _, _ = agflow.load_model("example")
    >>> batches = [(torch.zeros(8, 1, 28, 28), torch.arange(8))]
    >>> router = agflow.calibrate_router(agflow.predict(heavy, heavy, batches), escalation=0.9)
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     cascade = agflow.Cascade(heavy, heavy, router)
    ...     router = agflow.exporting.export_cascade(cascade, f"{scratch}/exported")
    ...     loaded = load_exported_cascade(pathlib.Path(scratch, "exported"))
    >>> loaded(batches[0][0]).shape
    torch.Size([8, 10])
    """
    content = EXPORT_FOLDER.read(folder)
    files = [str(entry.get("file")) for entry in content["files"]]
    names = [role + ONNX_ENDING for role in (LIGHT_ROLE, HEAVY_ROLE)]
    if sorted(files) != sorted(names):
        raise UnsupportedModelError(
            f"{folder} is an export of {', '.join(files)}, expected {' and '.join(names)}: the "
            "README in it runs its files, and the cascade that it was exported from can be loaded"
        )
    for name in (*names, ROUTER_FILE):
        with file_errors(f"file {folder / name}"):
            found = sha256_of(folder / name)
        if content.get("sha256", {}).get(name, found) != found:
            raise CorruptFileError(
                f"{folder / name} is damaged or of another cascade: its SHA-256 is not the one in "
                f"{EXPORT_FILE}; copy or export the cascade again"
            )
    light, heavy = (ExportedExpert(folder / name) for name in names)
    try:
        return Cascade(light, heavy, Router.load(folder / ROUTER_FILE)).eval()
    except (AgflowError, TypeError) as error:
        raise CorruptFileError(
            f"{folder / ROUTER_FILE} does not fit the experts beside it ({error}); export the "
            "cascade again"
        ) from error
