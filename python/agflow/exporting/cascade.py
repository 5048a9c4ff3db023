"""A cascade as files for other runtimes: both experts, the router and a README."""

from __future__ import annotations

import os
import pathlib
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import torch

from agflow._utils.devices import first_parameter
from agflow._utils.folders import atomic_folder
from agflow.cascade.cascade import Cascade
from agflow.cascade.file_names import README_FILE, ROUTER_FILE
from agflow.cascade.folder import router_of
from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.exporting.check_images import (
    CHECKED_IMAGES,
    at_own_size,
    float32_images,
    random_images,
)
from agflow.exporting.folder import (
    CLASS_NAMES,
    COSTS,
    ENDINGS,
    EXPORT_FOLDER,
    FILES,
    HEAVY_ROLE,
    LIGHT_ROLE,
    MAX_BATCH,
    PREFIX_ROLE,
)
from agflow.exporting.models import Signature, export_for_images, export_module
from agflow.exporting.readme import export_readme
from agflow.models import class_names, model_name, split
from agflow.models.callables import unwrapped
from agflow.models.resolution import image_size

IMAGES_TO_TOKENS, TOKENS_TO_LOGITS = Signature("images", "tokens"), Signature("tokens", "logits")


def export_cascade(
    cascade: Cascade,
    folder: str | os.PathLike,
    *,
    format: str = "onnx",
    images: torch.Tensor | None = None,
    preprocessing: Preprocessing | None = None,
) -> None:
    """Write a cascade for other runtimes, as a folder that appears whole or not at all.

    The folder holds ``light.onnx`` and ``heavy.onnx`` (or ``.pt2``), ``router.json``,
    ``export.json``, which names the inputs and outputs of the files, the classes and the costs, and
    a README that runs them together without torch. Each file is compared with the model first
    (:func:`agflow.export`). Both files take the images of the cascade; that of an expert that works
    at fewer pixels (:func:`agflow.models.at_image_size`) shrinks them. Experts with a shared prefix
    become three files: ``prefix.onnx`` from images to tokens, the others from tokens to logits. An
    older export of the same name is replaced, at once and whole; a folder with anything in it that
    agflow did not write is left alone.

    Parameters
    ----------
    format : ``"onnx"`` or ``"torch"``
    images : real images to compare on, float32 [B, C, H, W], as the cascade takes them; by default
        random ones
    preprocessing : of the cascade's images, kept in the files

    Raises
    ------
    InvalidValueError
        The cascade has a bare threshold and no router, the format is unknown, or a package of the
        format is not installed.
    DtypeError, UnsupportedModelError, InternalError
        As :func:`agflow.export`.
    FileError
        The folder holds something else or cannot be written.

    Examples
    --------
    >>> import agflow, os, tempfile, torch
    >>> from timm.models.vision_transformer import VisionTransformer
    >>> small = {"img_size": 16, "patch_size": 8, "num_classes": 8, "embed_dim": 32, "num_heads": 2}
    >>> light, heavy = VisionTransformer(depth=1, **small), VisionTransformer(depth=2, **small)
    >>> batches = [(torch.randn(8, 3, 16, 16), torch.arange(8))]
    >>> router = agflow.calibrate_router(agflow.predict(light, heavy, batches), escalation=0.9)
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     cascade = agflow.Cascade(light, heavy, router)
    ...     agflow.exporting.export_cascade(cascade, f"{scratch}/exported", format="torch")
    ...     sorted(os.listdir(f"{scratch}/exported"))
    ['README.md', 'export.json', 'heavy.pt2', 'light.pt2', 'router.json']
    """
    router = router_of(cascade)
    if format not in ENDINGS:
        raise InvalidValueError(f"the format is {format!r}, expected one of {', '.join(ENDINGS)}")
    write_files = _export_halves if cascade.shared_blocks else _export_experts
    with atomic_folder(folder, EXPORT_FOLDER) as made:
        files = write_files(cascade, made, ENDINGS[format], images, preprocessing)
        router.save(made / ROUTER_FILE)
        text = export_readme(cascade, router, files, format)
        (made / README_FILE).write_text(text, encoding="utf-8")
        EXPORT_FOLDER.seal(made, {FILES: files, **_known(cascade)})


def _known(cascade: Cascade) -> dict[str, Any]:
    """What a server wants to know of the cascade, as far as the cascade knows it itself."""
    known: dict[str, Any] = {}
    if cascade.max_batch is not None:
        known[MAX_BATCH] = cascade.max_batch
    with suppress(UnsupportedModelError):  # of a module that no adapter handles
        names = class_names(cascade.heavy) or class_names(cascade.light)
        known |= {} if names is None else {CLASS_NAMES: names}
    with suppress(UnsupportedModelError, InvalidValueError):  # or before the first image
        known[COSTS] = asdict(cascade.costs)
    return known


def _export_experts(
    cascade: Cascade,
    folder: pathlib.Path,
    ending: str,
    images: torch.Tensor | None,
    preprocessing: Preprocessing | None,
) -> list[dict]:
    """Both experts take the images of the cascade; one that works at fewer pixels shrinks them."""
    if images is None:
        size = preprocessing.input_size if preprocessing else image_size(cascade.heavy)
        images = random_images(unwrapped(cascade.heavy), size)
    images = float32_images(images)
    size, files = list(images.shape[2:]), []
    for role, model in ((LIGHT_ROLE, cascade.light), (HEAVY_ROLE, cascade.heavy)):
        file = role + ending
        export_for_images(unwrapped(model), folder / file, images, preprocessing=preprocessing)
        files.append({"file": file, "takes": "images", "gives": "logits", "image_size": size})
    return files


def _export_halves(
    cascade: Cascade,
    folder: pathlib.Path,
    ending: str,
    images: torch.Tensor | None,
    preprocessing: Preprocessing | None,
) -> list[dict]:
    """The shared prefix, and behind it the rest of either expert."""
    heavy, size = cascade.heavy, list(image_size(cascade.heavy))
    prefix, heavy_rest = split(heavy, cascade.shared_blocks)
    _, light_rest = split(cascade.light, cascade.shared_blocks)
    images = random_images(heavy) if images is None else images[:CHECKED_IMAGES]
    images = at_own_size(heavy, images.to(first_parameter(heavy)))
    with torch.no_grad():
        tokens = prefix(images)
    about = {
        "shared_blocks": cascade.shared_blocks,
        "image_size": size,
        "preprocessing": preprocessing and preprocessing.to_dict(),
    }
    files = []
    for role, whole, module, examples, signature in (
        (PREFIX_ROLE, heavy, prefix, images, IMAGES_TO_TOKENS),
        (LIGHT_ROLE, cascade.light, light_rest, tokens, TOKENS_TO_LOGITS),
        (HEAVY_ROLE, heavy, heavy_rest, tokens, TOKENS_TO_LOGITS),
    ):
        file, text = role + ending, {"name": model_name(whole), **about}
        export_module(module, folder / file, examples, text, signature=signature)
        files.append({"file": file, "takes": signature.takes, "gives": signature.gives})
    files[0]["image_size"] = size
    return files
