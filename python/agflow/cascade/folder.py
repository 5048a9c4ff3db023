"""A cascade on disk: both experts and the router as one folder, and as files for other runtimes."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from torch import nn

from agflow._utils.files import atomic_directory, write
from agflow.cascade.cascade import Cascade
from agflow.cascade.ensemble import BOTH
from agflow.cascade.router import Router
from agflow.data.preprocessing import Preprocessing
from agflow.errors import AgflowError, CorruptFileError, FileError, InvalidValueError
from agflow.models import model_name
from agflow.models.expert import CONFIG, load_expert, save_expert

if TYPE_CHECKING:
    from agflow.pruning.planning import Plan

FORMAT = 1
CASCADE, LIGHT, HEAVY, ROUTER, README = "cascade.json", "light", "heavy", "router.json", "README.md"
PARTS = (f"{LIGHT}/{CONFIG}", f"{HEAVY}/{CONFIG}", ROUTER)
"""Files whose SHA-256 cascade.json holds; an expert's config.json holds that of its weights."""


def save_cascade(
    cascade: Cascade,
    folder: str | os.PathLike,
    *,
    preprocessing: Preprocessing | None = None,
    tuning: str = "",
    plan: Plan | None = None,
) -> None:
    """Save a cascade as a folder, which appears whole or not at all: the experts' folders ``light`` and ``heavy``, ``router.json``,
    ``cascade.json`` and a README. A cascade folder of that name is replaced; any other folder is left alone.

    Parameters
    ----------
    preprocessing : what the images of the cascade need, kept with both experts
    tuning : sketch (:func:`agflow.data.sketch_images`) of the images that tuned an expert, kept with both
    plan : the plan that the light expert was cut by, kept with it

    Raises
    ------
    InvalidValueError
        The cascade has a bare threshold and no router.
    UnsupportedModelError
        An expert cannot be saved (:func:`agflow.save`).
    FileError
        The folder holds something else or cannot be written.
    """
    router = router_of(cascade)
    with atomic_directory(folder, "a cascade folder", CASCADE) as made:
        save_expert(cascade.light, made / LIGHT, plan, preprocessing=preprocessing, tuning=tuning)
        save_expert(cascade.heavy, made / HEAVY, preprocessing=preprocessing, tuning=tuning)
        router.save(made / ROUTER)
        config = {
            "format": FORMAT,
            "shared_blocks": cascade.shared_blocks,
            "max_batch": cascade.max_batch,
            "sha256": {part: _sha256((made / part).read_bytes()) for part in PARTS},
        }
        write(made / CASCADE, (json.dumps(config, indent=2) + "\n").encode())
        write(made / README, _readme(cascade, router).encode())


def load_cascade(folder: str | os.PathLike) -> Cascade:
    """Rebuild the cascade of a folder that :func:`save_cascade` made, in evaluation mode on the CPU; nothing in it is executed.

    Raises
    ------
    FileError
        The folder or one of its files is missing or not readable.
    CorruptFileError
        A file is damaged, or belongs to another cascade; the message names it.
    """
    folder = pathlib.Path(folder)
    config = _read_config(folder)
    for part, sha256 in config["sha256"].items():
        if _sha256(_read(folder / part)) != sha256:
            raise CorruptFileError(
                f"{folder / part} is damaged or of another cascade: its SHA-256 is not the one in {CASCADE}; "
                "copy or save the cascade again"
            )
    light, heavy, router = (
        load_expert(folder / LIGHT),
        load_expert(folder / HEAVY),
        Router.load(folder / ROUTER),
    )
    try:
        return Cascade(
            light,
            heavy,
            router,
            shared_blocks=config["shared_blocks"],
            max_batch=config["max_batch"],
        ).eval()
    except AgflowError as error:
        raise CorruptFileError(
            f"{folder / CASCADE} does not fit the experts and the router beside it ({error}); save the cascade again"
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
    """
    kept = {"plan": plan, "preprocessing": preprocessing, "tuning": tuning}
    (save_cascade if isinstance(model, Cascade) else save_expert)(model, folder, **kept)


def load(folder: str | os.PathLike) -> nn.Module:
    """Load the expert or the cascade of a folder made by :func:`save`, in evaluation mode on the CPU.

    Nothing in the folder is executed.

    Returns
    -------
    a :class:`agflow.Cascade` for a cascade's folder, else the expert's model

    Raises
    ------
    FileError
        The folder or one of its files is missing or not readable.
    CorruptFileError
        A file is damaged or was not made by :func:`save`; the message names it.
    """
    is_cascade = (pathlib.Path(folder) / CASCADE).exists()
    return load_cascade(folder) if is_cascade else load_expert(folder)


def router_of(cascade: Cascade) -> Router:
    if not isinstance(cascade.router, Router):
        raise InvalidValueError(
            f"the cascade has the bare threshold {cascade.threshold:g}, expected a router, which says what its threshold promises: "
            "calibrate one with calibrate_router"
        )
    return cascade.router


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileError(
            f"cascade folder {folder} is missing; expected a folder made by save_cascade"
        )
    try:
        config = json.loads(_read(folder / CASCADE))
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(
            f"{folder / CASCADE} is not JSON ({error}); save the cascade again"
        ) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CorruptFileError(
            f"{folder / CASCADE} has format {found!r}, expected {FORMAT}: it was not made by this version's save_cascade"
        )
    shared_blocks, max_batch, sha256 = (
        config.get(name) for name in ("shared_blocks", "max_batch", "sha256")
    )
    if (
        type(shared_blocks) is not int
        or "max_batch" not in config
        or max_batch is not None
        and type(max_batch) is not int
        or not isinstance(sha256, dict)
        or sha256.keys() != set(PARTS)
    ):
        raise CorruptFileError(
            f"{folder / CASCADE} lacks shared_blocks, max_batch or the SHA-256 of {', '.join(PARTS)}; save the cascade again"
        )
    return config


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(
            f"{path} cannot be read: {error.strerror}; a cascade folder needs {CASCADE}, {', '.join(PARTS)}"
        ) from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def cascade_summary(cascade: Cascade, router: Router) -> str:
    costs, blocks = cascade.costs, cascade.shared_blocks
    shared = (
        f"; they share the embeddings and the first {'block' if blocks == 1 else f'{blocks} blocks'}, which run once"
        if blocks
        else ""
    )
    answers = (
        f" Both experts answer these, the light one with weight {router.light_weight:.3g}."
        if router.answers == BOTH
        else ""
    )
    return (
        f"The light expert costs {costs.light / 1e6:.1f} M MACs per image, the heavy one {costs.heavy / 1e6:.1f} M{shared}.\n\n"
        f"Routing: {router.rule}.{answers} {router.verdict}: calibrated for {router.target} (limit {router.limit:g}) with confidence "
        f"{router.confidence:g} on {router.samples} held-out images, of which {100 * router.escalation:.1f} % escalated: "
        f"{router.ledger.charged:.3f}x of the heavy expert's MACs, charged.\n\n"
    )


def _readme(cascade: Cascade, router: Router) -> str:
    return (
        f"# {model_name(cascade.heavy)}: cascade for agflow\n\n{cascade_summary(cascade, router)}"
        f"`{LIGHT}` and `{HEAVY}` are expert folders, `{ROUTER}` is what `agflow route` writes, `{CASCADE}` holds what else the cascade "
        "needs and the SHA-256 of its parts.\n\n"
        "With agflow:\n\n"
        "```python\nimport agflow\n"
        'cascade = agflow.load("path of this folder")\n'
        "logits = cascade(images)  # float32 [B, C, H, W]\n"
        "with agflow.Server(cascade) as server:\n"
        "    future = server.submit(image)  # float32 [C, H, W], from any thread\n```\n\n"
        'What the images need is `agflow.models.expert.expert_preprocessing("path of this folder/heavy")`, where it was saved.\n\n'
        'Without torch: `agflow.exporting.export_cascade(cascade, "exported")` writes both experts as ONNX, with a README of its own.\n'
    )
