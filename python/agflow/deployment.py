"""A cascade on disk: both experts and the router as one folder, and as files for other runtimes."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from typing import Any

import torch

from agflow.cascade import Cascade
from agflow.errors import AgflowError, CorruptFileError, FileError, InvalidValueError
from agflow.experts import CONFIG, load_expert, save_expert
from agflow.exporting import CHECKED_IMAGES, FORMATS, export, export_module
from agflow.folders import appearing_whole, write
from agflow.looks import image_size
from agflow.models import adapter_for, model_name, split
from agflow.models.resizing import resize_of
from agflow.planning import Plan
from agflow.preprocessing import Preprocessing
from agflow.routing import BOTH, Router

FORMAT = 1
CASCADE, LIGHT, HEAVY, ROUTER, README = "cascade.json", "light", "heavy", "router.json", "README.md"
EXPORTED = "export.json"
PARTS = (f"{LIGHT}/{CONFIG}", f"{HEAVY}/{CONFIG}", ROUTER)
"""Files whose SHA-256 cascade.json holds; an expert's config.json holds that of its weights."""


def save_cascade(cascade: Cascade, folder: str | os.PathLike, *, preprocessing: Preprocessing | None = None, tuning: str = "",
                 plan: Plan | None = None) -> None:
    """Save a cascade as a folder, which appears whole or not at all: the experts' folders ``light`` and ``heavy``, ``router.json``,
    ``cascade.json`` and a README. A cascade folder of that name is replaced; any other folder is left alone.

    Parameters
    ----------
    preprocessing : what the images of the cascade need, kept with both experts
    tuning : sketch (:func:`agflow.sketch_images`) of the images that tuned an expert, kept with both
    plan : the plan that the light expert was cut by, kept with it

    Raises
    ------
    InvalidValueError
        The cascade has a bare threshold and no router.
    UnsupportedModelError
        An expert cannot be saved (:func:`agflow.save_expert`).
    FileError
        The folder holds something else or cannot be written.
    """
    router = _router_of(cascade)
    with appearing_whole(folder, "a cascade folder", CASCADE) as made:
        save_expert(cascade.light, made / LIGHT, plan, preprocessing=preprocessing, tuning=tuning)
        save_expert(cascade.heavy, made / HEAVY, preprocessing=preprocessing, tuning=tuning)
        router.save(made / ROUTER)
        config = {"format": FORMAT, "shared_blocks": cascade.shared_blocks, "max_batch": cascade.max_batch,
                  "sha256": {part: _sha256((made / part).read_bytes()) for part in PARTS}}
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
            raise CorruptFileError(f"{folder / part} is damaged or of another cascade: its SHA-256 is not the one in {CASCADE}; "
                                   "copy or save the cascade again")
    light, heavy, router = load_expert(folder / LIGHT), load_expert(folder / HEAVY), Router.load(folder / ROUTER)
    try:
        return Cascade(light, heavy, router, shared_blocks=config["shared_blocks"], max_batch=config["max_batch"]).eval()
    except AgflowError as error:
        raise CorruptFileError(f"{folder / CASCADE} does not fit the experts and the router beside it ({error}); save the cascade again") from error


def export_cascade(cascade: Cascade, folder: str | os.PathLike, *, format: str = "onnx", images: torch.Tensor | None = None,
                   preprocessing: Preprocessing | None = None) -> None:
    """Write a cascade for other runtimes, as a folder that appears whole or not at all: ``light.onnx``, ``heavy.onnx`` (or
    ``.pt2``), ``router.json``, ``export.json`` (which file takes what) and a README that tells how they work together without torch.

    Each file is compared with the model first (:func:`agflow.export`). Experts with a shared prefix become three files:
    ``prefix.onnx`` from images to tokens, the others from tokens to logits. An older export of that name is replaced, any
    other folder is left alone.

    Parameters
    ----------
    format : ``"onnx"`` or ``"torch"``
    images : some real images to compare on, float32 [B, C, H, W], as the cascade takes them; random ones when left out
    preprocessing : what the images of the cascade need, kept in the files

    Raises
    ------
    InvalidValueError
        The cascade has a bare threshold and no router, the format is unknown, or a package of the format is not installed.
    DtypeError, UnsupportedModelError
        As :func:`agflow.export`.
    FileError
        The folder holds something else or cannot be written.
    """
    router = _router_of(cascade)
    if format not in FORMATS:
        raise InvalidValueError(f"the format is {format!r}, expected one of {', '.join(FORMATS)}")
    with appearing_whole(folder, "an export of a cascade", EXPORTED) as made:
        files = _export_halves(cascade, made, FORMATS[format], images, preprocessing) if cascade.shared_blocks else \
            _export_experts(cascade, made, FORMATS[format], images, preprocessing)
        router.save(made / ROUTER)
        write(made / EXPORTED, (json.dumps({"format": FORMAT, "files": files}, indent=2) + "\n").encode())
        write(made / README, _export_readme(cascade, router, files).encode())


def _export_experts(cascade: Cascade, folder: pathlib.Path, ending: str, images: torch.Tensor | None, preprocessing: Preprocessing | None) -> list[dict]:
    files = []
    for role, model in ((LIGHT, cascade.light), (HEAVY, cascade.heavy)):
        export(model, folder / (role + ending), images=images, preprocessing=preprocessing)
        files.append({"file": role + ending, "takes": "images", "gives": "logits", "image_size": list(image_size(model))})
    return files


def _export_halves(cascade: Cascade, folder: pathlib.Path, ending: str, images: torch.Tensor | None, preprocessing: Preprocessing | None) -> list[dict]:
    heavy = cascade.heavy
    (prefix, heavy_rest), (_, light_rest) = split(heavy, cascade.shared_blocks), split(cascade.light, cascade.shared_blocks)
    parameter = next(heavy.parameters())
    if images is None:
        images = torch.randn(CHECKED_IMAGES, *adapter_for(heavy).input_size(heavy), generator=torch.Generator().manual_seed(0))
    resize = resize_of(heavy)
    images = images[:CHECKED_IMAGES].to(parameter) if resize is None else resize.resized(images[:CHECKED_IMAGES].to(parameter))
    with torch.no_grad():
        tokens = prefix(images)
    about = {"shared_blocks": cascade.shared_blocks, "image_size": list(image_size(heavy)), "preprocessing": preprocessing and preprocessing.to_dict()}
    export_module(prefix, folder / f"prefix{ending}", images, {"name": model_name(heavy), **about}, outlet="tokens")
    export_module(light_rest, folder / (LIGHT + ending), tokens, {"name": model_name(cascade.light), **about}, inlet="tokens")
    export_module(heavy_rest, folder / (HEAVY + ending), tokens, {"name": model_name(heavy), **about}, inlet="tokens")
    return [{"file": f"prefix{ending}", "takes": "images", "gives": "tokens", "image_size": about["image_size"]},
            *({"file": role + ending, "takes": "tokens", "gives": "logits"} for role in (LIGHT, HEAVY))]


def _router_of(cascade: Cascade) -> Router:
    if not isinstance(cascade.router, Router):
        raise InvalidValueError(f"the cascade has the bare threshold {cascade.threshold:g}, expected a router, which says what its threshold promises: "
                                "calibrate one with calibrate_router")
    return cascade.router


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise FileError(f"cascade folder {folder} is missing; expected a folder made by save_cascade")
    try:
        config = json.loads(_read(folder / CASCADE))
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"{folder / CASCADE} is not JSON ({error}); save the cascade again") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else type(config).__name__
        raise CorruptFileError(f"{folder / CASCADE} has format {found!r}, expected {FORMAT}: it was not made by this version's save_cascade")
    shared_blocks, max_batch, sha256 = (config.get(name) for name in ("shared_blocks", "max_batch", "sha256"))
    if type(shared_blocks) is not int or "max_batch" not in config or max_batch is not None and type(max_batch) is not int \
            or not isinstance(sha256, dict) or sha256.keys() != set(PARTS):
        raise CorruptFileError(f"{folder / CASCADE} lacks shared_blocks, max_batch or the SHA-256 of {', '.join(PARTS)}; save the cascade again")
    return config


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}; a cascade folder needs {CASCADE}, {', '.join(PARTS)}") from error


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _summary(cascade: Cascade, router: Router) -> str:
    costs, blocks = cascade.costs, cascade.shared_blocks
    shared = f"; they share the embeddings and the first {'block' if blocks == 1 else f'{blocks} blocks'}, which run once" if blocks else ""
    answers = f" Both experts answer these, the light one with weight {router.light_weight:.3g}." if router.answers == BOTH else ""
    return (f"The light expert costs {costs.light / 1e6:.1f} M MACs per image, the heavy one {costs.heavy / 1e6:.1f} M{shared}.\n\n"
            f"Routing: {router.rule}.{answers} {router.verdict}: calibrated for {router.target} (limit {router.limit:g}) with confidence "
            f"{router.confidence:g} on {router.samples} held-out images, of which {100 * router.escalation:.1f} % escalated: "
            f"{router.ledger.charged:.3f}x of the heavy expert's MACs, charged.\n\n")


def _readme(cascade: Cascade, router: Router) -> str:
    return (f"# {model_name(cascade.heavy)}: cascade for agflow\n\n{_summary(cascade, router)}"
            f"`{LIGHT}` and `{HEAVY}` are expert folders, `{ROUTER}` is what `agflow route` writes, `{CASCADE}` holds what else the cascade "
            "needs and the SHA-256 of its parts.\n\n"
            "With agflow:\n\n"
            "```python\nimport agflow\n"
            "cascade = agflow.load_cascade(\"path of this folder\")\n"
            "logits = cascade(images)  # float32 [B, C, H, W]\n"
            "with agflow.Server(cascade) as server:\n"
            "    future = server.submit(image)  # float32 [C, H, W], from any thread\n```\n\n"
            "What the images need is `agflow.experts.expert_preprocessing(\"path of this folder/heavy\")`, where it was saved.\n\n"
            "Without torch: `agflow.export_cascade(cascade, \"exported\")` writes both experts as ONNX, with a README of its own.\n")


def _export_readme(cascade: Cascade, router: Router, files: list[dict]) -> str:
    light, heavy = (next(entry["file"] for entry in files if entry["file"].startswith(role)) for role in (LIGHT, HEAVY))
    size = lambda entry: " of {}x{} pixels".format(*entry["image_size"]) if "image_size" in entry else ""
    listed = "".join(f"- `{entry['file']}`: {entry['takes']}{size(entry)} to {entry['gives']}\n" for entry in files)
    shared = cascade.shared_blocks
    resized = image_size(cascade.light) != image_size(cascade.heavy)
    return (f"# {model_name(cascade.heavy)}: cascade for other runtimes\n\n{_summary(cascade, router)}{listed}- `{ROUTER}`: the calibrated decision\n\n"
            + ("The light expert looks at smaller images: shrink the images of the heavy one bilinear and antialiased.\n\n" if resized else "")
            + "An answer takes four steps. The second and the fourth need agflow, without torch.\n\n"
            f"1. {f'Run the prefix on the images, then `{light}` on its tokens' if shared else f'Run `{light}` on the images'}.\n"
            f"2. Ask which images escalate: `agflow decide --router {ROUTER} --light light.arrow --output decisions.arrow`.\n"
            f"3. Run `{heavy}` on {'the tokens of these images' if shared else 'these images'}, in their order.\n"
            f"4. Ask for the answers: `agflow decide --router {ROUTER} --light light.arrow --heavy heavy.arrow --output answers.arrow`.\n\n"
            "The files of logits are written by `agflow.Logits.of(logits).save(\"light.arrow\")`, those of decisions read by any Arrow "
            "tool. A Go program does without files: package `agflow/core/routing`, `Router.Decide` and `Router.Answer`.\n")
