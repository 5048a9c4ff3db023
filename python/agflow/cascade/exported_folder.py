"""A cascade exported for other runtimes: what its folder holds, and how it is loaded again."""

from __future__ import annotations

import pathlib

from agflow.cascade.cascade import Cascade
from agflow.cascade.export_file import read_export
from agflow.cascade.file_names import (
    COSTS,
    HEAVY_ROLE,
    LIGHT_ROLE,
    MAX_BATCH,
    ROUTER_FILE,
)
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.router import Router
from agflow.errors import AgflowError, CorruptFileError, UnsupportedModelError
from agflow.models.exported import ONNX_ENDING, ExportedExpert


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
    files, content = read_export(folder)
    names = [role + ONNX_ENDING for role in (LIGHT_ROLE, HEAVY_ROLE)]
    if sorted(files.values()) != sorted(names):
        raise UnsupportedModelError(
            f"{folder} is an export of {', '.join(files.values())}, expected "
            f"{' and '.join(names)}: the README in it runs its files, and the cascade that it was "
            "exported from can be loaded"
        )
    light, heavy = (ExportedExpert(folder / name) for name in names)
    try:
        costs = CascadeCosts(**content[COSTS]) if COSTS in content else None
        router, max_batch = Router.load(folder / ROUTER_FILE), content.get(MAX_BATCH)
        return Cascade(light, heavy, router, max_batch=max_batch, costs=costs).eval()
    except (AgflowError, TypeError) as error:
        raise CorruptFileError(
            f"{folder / ROUTER_FILE} does not fit the experts beside it ({error}); export the "
            "cascade again"
        ) from error
