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
from agflow.cascade.export_file import EXPORT_FOLDER
from agflow.cascade.file_names import (
    CLASS_NAMES,
    COSTS,
    ENDINGS,
    FILES,
    HEAVY_ROLE,
    LIGHT_ROLE,
    MAX_BATCH,
    PREFIX_ROLE,
    README_FILE,
    ROUTER_FILE,
)
from agflow.cascade.folder import router_of
from agflow.cascade.router import Router
from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.exporting.example_images import first_images
from agflow.exporting.models import (
    Signature,
    export_expert,
    export_module,
)
from agflow.exporting.quantizing import Images, check_quantization
from agflow.exporting.readme import export_readme
from agflow.exporting.recalibration import HeldOutImages, check_held_out, recalibrated
from agflow.models import class_names, model_name, split
from agflow.models.resolution import image_size

IMAGES_TO_TOKENS, TOKENS_TO_LOGITS = Signature("images", "tokens"), Signature("tokens", "logits")


def export_cascade(
    cascade: Cascade,
    folder: str | os.PathLike,
    *,
    format: str = "onnx",
    images: Images | None = None,
    preprocessing: Preprocessing | None = None,
    quantize: str | None = None,
    held_out: HeldOutImages | None = None,
) -> Router:
    """Write a cascade for other runtimes, as a folder that appears whole or not at all.

    The folder holds ``light.onnx`` and ``heavy.onnx`` (or ``.pt2``), ``router.json``,
    ``export.json``, which names the inputs and outputs of the files, the classes and the costs, and
    a README that runs them together without torch. Each file is compared with the model first
    (:func:`agflow.export`). Both files take the images of the cascade; that of an expert that works
    at fewer pixels (:func:`agflow.models.at_image_size`) shrinks them. Experts with a shared prefix
    become three files: ``prefix.onnx`` from images to tokens, the others from tokens to logits. An
    older export of the same name is replaced, at once and whole; a folder with anything in it that
    agflow did not write is left alone.

    With ``quantize`` both experts become int8 files (:func:`agflow.export`), which are other
    models: the threshold is calibrated on their own predictions of the ``held_out`` images, to the
    target and the limit of the router that the cascade has, and its guarantee is against the int8
    heavy expert; the light one may lose more than 0.5 points, which the threshold makes good. The
    README has the promises and the speeds of both pairs, and what each file
    loses. ``agflow.load(folder)`` is a cascade that runs the files.

    Parameters
    ----------
    format : ``"onnx"`` or ``"torch"``
    images : real images to compare on, float32 [B, C, H, W], as the cascade takes them; by default
        random ones. To quantise, some hundreds, or batches that can be read twice
    preprocessing : of the cascade's images, kept in the files
    quantize : None, or as of :func:`agflow.export`
    held_out : images that calibrate the threshold of the int8 files, none of which has quantised
        them; needed with ``quantize``, and only then

    Returns
    -------
    the router in the folder

    Raises
    ------
    InvalidValueError
        The cascade has a bare threshold and no router, the format is unknown, or a package of the
        format is not installed; int8 has no held-out images, or some that quantised an expert, or
        loses more than 0.5 points.
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
    ...     same = agflow.exporting.export_cascade(cascade, f"{scratch}/exported", format="torch")
    ...     sorted(os.listdir(f"{scratch}/exported"))
    ['README.md', 'export.json', 'heavy.pt2', 'light.pt2', 'router.json']
    """
    router = router_of(cascade)
    if format not in ENDINGS:
        raise InvalidValueError(f"the format is {format!r}, expected one of {', '.join(ENDINGS)}")
    check_held_out(cascade, quantize, held_out)
    if quantize is not None:
        check_quantization(quantize, format, images)
    with atomic_folder(folder, EXPORT_FOLDER) as made:
        text = ""
        if cascade.shared_blocks:
            files = _export_halves(cascade, made, ENDINGS[format], images, preprocessing)
        else:
            files = _export_experts(cascade, made, format, images, preprocessing, quantize)
        if held_out is not None:
            served = recalibrated(cascade, router, made, held_out)
            text = served.beside(router)
            cascade, router = served.cascade, served.router
        router.save(made / ROUTER_FILE)
        text = export_readme(cascade, router, files, format, text)
        (made / README_FILE).write_text(text, encoding="utf-8")
        EXPORT_FOLDER.seal(made, {FILES: files, **_known(cascade)})
    return router


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
    format: str,
    images: Images | None,
    preprocessing: Preprocessing | None,
    quantize: str | None,
) -> list[dict]:
    """Both experts. Whatever the light one loses, the threshold makes good.

    Both take the images of the cascade, and one that works at fewer pixels shrinks them.
    """
    size = _size_of(cascade, images, preprocessing)
    files = []
    for role, model in ((LIGHT_ROLE, cascade.light), (HEAVY_ROLE, cascade.heavy)):
        file, strict = role + ENDINGS[format], role == HEAVY_ROLE
        about = (format, images, preprocessing)
        how = {"quantize": quantize, "strict": strict, "size": size}
        export_expert(model, folder / file, *about, **how)
        entry = {"file": file, "takes": "images", "gives": "logits", "image_size": list(size)}
        files.append(entry)
    return files


def _size_of(
    cascade: Cascade, images: Images | None, preprocessing: Preprocessing | None
) -> tuple[int, int]:
    """Height and width of the images that the cascade is exported for."""
    if isinstance(images, torch.Tensor) and images.ndim == 4:
        return images.shape[2], images.shape[3]
    return preprocessing.input_size if preprocessing else image_size(cascade.heavy)


def _export_halves(
    cascade: Cascade,
    folder: pathlib.Path,
    ending: str,
    images: Images | None,
    preprocessing: Preprocessing | None,
) -> list[dict]:
    """The shared prefix, and behind it the rest of either expert."""
    heavy, size = cascade.heavy, list(image_size(cascade.heavy))
    prefix, heavy_rest = split(heavy, cascade.shared_blocks)
    _, light_rest = split(cascade.light, cascade.shared_blocks)
    images = first_images(heavy, images, None).to(first_parameter(heavy))
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
