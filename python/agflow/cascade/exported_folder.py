"""A cascade exported for other runtimes: what its folder holds, and how it is loaded again."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import torch

from agflow._utils.onnx_session import OnnxSession
from agflow.cascade.cascade import Cascade
from agflow.cascade.export_file import read_export
from agflow.cascade.file_names import (
    COSTS,
    HEAVY_ROLE,
    LIGHT_ROLE,
    MAX_BATCH,
    PREFIX_ROLE,
    ROUTER_FILE,
)
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.router import Router
from agflow.errors import AgflowError, CorruptFileError, UnsupportedModelError
from agflow.models.exported import ONNX_ENDING, ExportedExpert, ExportedPart


def load_exported_cascade(folder: pathlib.Path) -> Cascade:
    """Load the cascade of a folder that :func:`agflow.exporting.export_cascade` made as ONNX.

    Raises
    ------
    FileError, CorruptFileError
        A file is missing or damaged.
    UnsupportedModelError
        The export is of torch's format.

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
    if any(not name.endswith(ONNX_ENDING) for name in files.values()):
        raise UnsupportedModelError(
            f"{folder} is an export of {', '.join(files.values())}, expected files of "
            f"{ONNX_ENDING}: the README in it runs its files, and the cascade that it was exported "
            "from can be loaded"
        )
    light, heavy, shared_blocks = _pair(folder, files)
    try:
        router, costs = Router.load(folder / ROUTER_FILE), None
        if COSTS in content:
            costs = CascadeCosts(**content[COSTS])
        elif shared_blocks:
            costs = router.ledger.costs
        how = {"shared_blocks": shared_blocks, "max_batch": content.get(MAX_BATCH), "costs": costs}
        return Cascade(light, heavy, router, **how).eval()
    except (AgflowError, TypeError) as error:
        raise CorruptFileError(
            f"{folder / ROUTER_FILE} does not fit the experts beside it ({error}); export the "
            "cascade again"
        ) from error


def _pair(
    folder: pathlib.Path, files: Mapping[str, str]
) -> tuple[ExportedExpert, ExportedExpert, int]:
    """The light and the heavy expert of files by their roles, and how many blocks they share."""
    prefix, shared_blocks = None, 0
    if PREFIX_ROLE in files:
        path = folder / files[PREFIX_ROLE]
        prefix = ExportedPart(OnnxSession(path, torch.get_num_threads()))
        shared_blocks = prefix.session.metadata.get("shared_blocks")
        if type(shared_blocks) is not int or shared_blocks < 1:
            raise CorruptFileError(
                f"{path} says shared_blocks {shared_blocks!r:.40}, expected its number of blocks: "
                "export the cascade again"
            )
    light, heavy = (
        ExportedExpert(folder / files[role], prefix=prefix) for role in (LIGHT_ROLE, HEAVY_ROLE)
    )
    return light, heavy, shared_blocks
