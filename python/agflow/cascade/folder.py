"""A cascade on disk: both experts and the router as one folder, in which nothing is executed."""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn

from agflow._utils.files import read_bytes
from agflow._utils.folders import FolderKind, atomic_folder
from agflow._utils.json_file import MAX_JSON_BYTES, Keys
from agflow.cascade.cascade import Cascade
from agflow.cascade.expert_costs import costs_without_images
from agflow.cascade.exported_folder import load_exported_cascade
from agflow.cascade.file_names import (
    CASCADE_FILE,
    EXPORT_FILE,
    HEAVY_FOLDER,
    LIGHT_FOLDER,
    README_FILE,
    ROUTER_FILE,
)
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.readme import cascade_readme
from agflow.cascade.router import Router
from agflow.cascade.verdict import Verdict
from agflow.data.preprocessing import Preprocessing
from agflow.errors import (
    AgflowError,
    CorruptFileError,
    FileError,
    InvalidValueError,
    UnsupportedModelError,
)
from agflow.models.expert import CONFIG, EXPERT_FOLDER, load_expert, save_expert
from agflow.models.exported import ExportedExpert, exported_file

if TYPE_CHECKING:
    from agflow.pruning.planning import Plan

Given = nn.Module | str | Callable[[], nn.Module] | Mapping[str, Any] | None
"""What the user gives for a model of their own, see :func:`load`."""

HASHED_PARTS = (f"{LIGHT_FOLDER}/{CONFIG}", f"{HEAVY_FOLDER}/{CONFIG}", ROUTER_FILE)
"""Files whose SHA-256 is compared; an expert's config.json holds that of its weights."""

CASCADE_FOLDER = FolderKind(
    "a cascade folder",
    CASCADE_FILE,
    keys={n: Keys(("shared_blocks", "max_batch", "sha256"), ("costs",)) for n in (1, 4)},
    earlier=(
        *(
            f"{role}/{file}"
            for role in (LIGHT_FOLDER, HEAVY_FOLDER)
            for file in (CONFIG, *EXPERT_FOLDER.earlier)
        ),
        *(ROUTER_FILE, README_FILE, "frontier.md", "frontier.arrow"),
        *("predictions.arrow", "predictions-threshold.arrow"),
    ),
)


def save_cascade(
    cascade: Cascade,
    folder: str | os.PathLike,
    *,
    preprocessing: Preprocessing | None = None,
    tuning: str = "",
    plan: Plan | None = None,
) -> None:
    """Save a cascade as a folder, which appears whole or not at all.

    The folder holds the experts' folders ``light`` and ``heavy``, ``router.json``, ``cascade.json``
    and a README. A cascade folder of the same name is replaced, at once and whole; a folder with
    anything in it that agflow did not write is left alone.

    Parameters
    ----------
    preprocessing : of the cascade's images, kept with both experts
    tuning : sketch (:func:`agflow.data.sketch_images`) of the images that tuned an expert, kept
        with both
    plan : the plan that the light expert was pruned by, kept with it

    Raises
    ------
    InvalidValueError
        The cascade has a bare threshold and no router.
    UnsupportedModelError
        An expert cannot be saved (:func:`agflow.save`): no adapter knows its family.
    FileError
        The folder holds something else or cannot be written.

    Examples
    --------
    >>> import agflow, tempfile, torch
    >>> heavy, _, _ = agflow.load_model("example")
    >>> batches = [(torch.zeros(8, 1, 28, 28), torch.arange(8))]
    >>> router = agflow.calibrate_router(agflow.predict(heavy, heavy, batches), escalation=0.9)
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     cascade = agflow.Cascade(heavy, heavy, router, shared_blocks=1)
    ...     agflow.cascade.save_cascade(cascade, f"{scratch}/cascade")
    ...     loaded = agflow.cascade.load_cascade(f"{scratch}/cascade")
    >>> loaded.shared_blocks
    1
    """
    router_of(cascade)
    with atomic_folder(folder, CASCADE_FOLDER) as made:
        write_cascade(cascade, made, preprocessing=preprocessing, tuning=tuning, plan=plan)


def write_cascade(
    cascade: Cascade,
    folder: pathlib.Path,
    *,
    preprocessing: Preprocessing | None = None,
    tuning: str = "",
    plan: Plan | None = None,
    counts: Verdict | None = None,
) -> None:
    """Write a cascade's files into a folder under way; what lies there already belongs to it.

    The README begins with ``counts``, by default with what the router's calibration says.
    """
    router = router_of(cascade)
    kept = {"preprocessing": preprocessing, "tuning": tuning}
    try:
        save_expert(cascade.light, folder / LIGHT_FOLDER, plan, **kept)
        save_expert(cascade.heavy, folder / HEAVY_FOLDER, **kept)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(
            f"the cascade cannot be saved as a folder: {error}; what works: keep the router with "
            "cascade.router.save('router.json'), save each expert as its library does, and join "
            "them again with agflow.Cascade(light, heavy, agflow.Router.load('router.json'))"
        ) from error
    router.save(folder / ROUTER_FILE)
    readme = cascade_readme(cascade, router, counts or router.counts)
    (folder / README_FILE).write_text(readme, encoding="utf-8")
    seal_cascade(cascade, folder)


def seal_cascade(
    cascade: Cascade, folder: pathlib.Path, files: Iterable[str] | None = None
) -> None:
    """Write cascade.json into a folder in which the experts' folders and the router are already.

    Parameters
    ----------
    files : those of the cascade, where others lie beside them; by default all
    """
    config: dict[str, Any] = {
        "shared_blocks": cascade.shared_blocks,
        "max_batch": cascade.max_batch,
    }
    if cascade.costs != _costs_at_loading(cascade):
        config["costs"] = asdict(cascade.costs)
    CASCADE_FOLDER.seal(folder, config, files)


def load_cascade(folder: str | os.PathLike, model: Given = None) -> Cascade:
    """Load the cascade of a folder that :func:`save_cascade` made, in evaluation mode on the CPU.

    Nothing in the folder is executed.

    Parameters
    ----------
    model : as of :func:`load`

    Raises
    ------
    UnsupportedModelError, InvalidValueError
        As :func:`load`.
    FileError
        The folder or one of its files is missing or not readable.
    CorruptFileError
        A file is damaged, or belongs to another cascade; the message names it.

    Examples
    --------
    >>> import agflow, tempfile, torch
    >>> heavy, _, _ = agflow.load_model("example")
    >>> batches = [(torch.zeros(8, 1, 28, 28), torch.arange(8))]
    >>> router = agflow.calibrate_router(agflow.predict(heavy, heavy, batches), escalation=0.9)
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     cascade = agflow.Cascade(heavy, heavy, router, shared_blocks=2)
    ...     agflow.cascade.save_cascade(cascade, f"{scratch}/cascade")
    ...     loaded = agflow.cascade.load_cascade(f"{scratch}/cascade")
    >>> loaded.shared_blocks
    2
    """
    folder = pathlib.Path(folder)
    config = _read_config(folder)
    for part in HASHED_PARTS:
        content = read_bytes(folder / part, "file", MAX_JSON_BYTES)
        if hashlib.sha256(content).hexdigest() != config["sha256"][part]:
            raise CorruptFileError(
                f"{folder / part} is damaged or of another cascade: its SHA-256 is not the one in "
                f"{CASCADE_FILE}; copy or save the cascade again"
            )
    given = model if isinstance(model, Mapping) else {LIGHT_FOLDER: model, HEAVY_FOLDER: model}
    light, heavy = (
        load_expert(folder / role, given.get(role)) for role in (LIGHT_FOLDER, HEAVY_FOLDER)
    )
    router = Router.load(folder / ROUTER_FILE)
    limits = {name: config[name] for name in ("shared_blocks", "max_batch")}
    try:
        costs = CascadeCosts(**config["costs"]) if "costs" in config else None
        return Cascade(light, heavy, router, **limits, costs=costs).eval()
    except (AgflowError, TypeError) as error:
        raise CorruptFileError(
            f"{folder / CASCADE_FILE} does not fit the experts and the router beside it ({error}); "
            "save the cascade again"
        ) from error


def save(
    model: nn.Module,
    folder: str | os.PathLike,
    *,
    plan: Plan | None = None,
    preprocessing: Preprocessing | None = None,
    tuning: str = "",
) -> None:
    """Save an expert or a cascade as a folder, which appears whole or not at all.

    A folder of the same kind is replaced; any other folder is left alone.

    Parameters
    ----------
    model : a dense or pruned model (:func:`agflow.models.save_expert`), or a
        :class:`agflow.Cascade` (:func:`agflow.cascade.save_cascade`)
    plan : the plan that the expert, or the cascade's light expert, was pruned by
    preprocessing : what the model's images need
    tuning : sketch (:func:`agflow.data.sketch_images`) of the images that tuned an expert

    Raises
    ------
    UnsupportedModelError
        No adapter can describe a model, or it holds more than its description does.
    InvalidValueError
        A cascade has a bare threshold and no router.
    FileError
        The folder holds something else or cannot be written.

    Examples
    --------
    >>> import agflow, tempfile
    >>> heavy, preprocessing, _ = agflow.load_model("example")
    >>> light = agflow.models.at_image_size(heavy, 20)
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     agflow.save(light, f"{scratch}/light", preprocessing=preprocessing)
    ...     loaded = agflow.load(f"{scratch}/light")
    >>> agflow.count_macs(loaded) == agflow.count_macs(light)
    True
    """
    if isinstance(model, Cascade):
        save_cascade(model, folder, plan=plan, preprocessing=preprocessing, tuning=tuning)
    else:
        save_expert(model, folder, plan, preprocessing, tuning=tuning)


def load(folder: str | os.PathLike, model: Given = None) -> nn.Module:
    """Load the expert or the cascade of a folder made by :func:`save`, or an exported expert.

    It is in evaluation mode on the CPU; nothing in the folder is executed.

    Parameters
    ----------
    folder : the folder; that of a cascade may be one that
        :func:`agflow.exporting.export_cascade` wrote as ONNX. Or an ONNX file, ``FILE.onnx`` or
        ``onnx:FILE``, which becomes a module that runs it
        (:class:`agflow.models.exported.ExportedExpert`)
    model : for a model of a class of the user's own, which no folder can make: the dense model that
        it was cut from, a function without arguments that makes it, or the name of one,
        ``"module:function"``; for a cascade also both, as ``{"light": ..., "heavy": ...}``

    Returns
    -------
    a :class:`agflow.Cascade` for a cascade's folder, else the expert's model

    Raises
    ------
    FileError
        The folder or one of its files is missing or not readable.
    CorruptFileError
        A file is damaged or was not made by :func:`save`; the message names it.
    UnsupportedModelError
        The folder is of a model of the user's own and ``model`` is missing.
    InvalidValueError
        ``model`` is not what the expert was cut from, or the folder says all of its model.

    Examples
    --------
    >>> import agflow, tempfile, torch
    >>> heavy, _, _ = agflow.load_model("example")
    >>> light = agflow.models.at_image_size(heavy, 20)
    >>> batches = [(torch.zeros(8, 1, 28, 28), torch.arange(8))]
    >>> router = agflow.calibrate_router(agflow.predict(light, heavy, batches), escalation=0.9)
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     agflow.save(agflow.Cascade(light, heavy, router), f"{scratch}/cascade")
    ...     loaded = agflow.load(f"{scratch}/cascade")
    >>> loaded.router == router
    True
    """
    file = exported_file(folder)
    if file is not None and not file.is_dir():
        _no_model(model, file)
        return ExportedExpert(file)
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileError(
            f"folder {folder} is missing, expected one made by agflow.save, or a FILE.onnx"
        )
    if (folder / EXPORT_FILE).exists():
        _no_model(model, folder)
        return load_exported_cascade(folder)
    # Either file marks a cascade, so that one without the other is reported as damaged.
    is_cascade = any((folder / file).exists() for file in (CASCADE_FILE, ROUTER_FILE))
    if is_cascade:
        return load_cascade(folder, model)
    if isinstance(model, Mapping):
        raise InvalidValueError(
            f"{folder} is the folder of an expert and model is a {type(model).__name__}, expected "
            "one model: the two of a cascade are given by name"
        )
    return load_expert(folder, model)


def _no_model(model: Given, file: pathlib.Path) -> None:
    if model is not None:
        raise InvalidValueError(f"{file} was exported and holds all of its model: leave model out")


def router_of(cascade: Cascade) -> Router:
    """The calibrated router of a cascade, without which it is not written."""
    if not isinstance(cascade.router, Router):
        raise InvalidValueError(
            f"the cascade has the bare threshold {cascade.threshold:g}, expected a router, "
            "which holds what its threshold guarantees: calibrate one with calibrate_router"
        )
    return cascade.router


def _costs_at_loading(cascade: Cascade) -> CascadeCosts | None:
    """The costs that a loaded cascade finds by itself."""
    return costs_without_images(
        cascade.light, cascade.heavy, None, cascade.shared_blocks, cascade.router
    )


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileError(
            f"cascade folder {folder} is missing; expected a folder made by save_cascade"
        )
    config = CASCADE_FOLDER.read(folder)
    shared_blocks, max_batch = config["shared_blocks"], config["max_batch"]
    if type(shared_blocks) is not int or not (max_batch is None or type(max_batch) is int):
        raise CorruptFileError(
            f"shared_blocks or max_batch in {folder / CASCADE_FILE} is no number; save the "
            "cascade again"
        )
    missing = [part for part in HASHED_PARTS if part not in config["sha256"]]
    if missing:
        raise CorruptFileError(
            f"sha256 in {folder / CASCADE_FILE} lacks {', '.join(missing)}; save the cascade again"
        )
    return config
