"""A cascade as files for other runtimes: both experts, the router and a README."""

from __future__ import annotations

import os
import pathlib

import torch

from agflow._utils.devices import first_parameter
from agflow._utils.folders import FolderKind, atomic_folder
from agflow._utils.json_file import Keys
from agflow.cascade.cascade import Cascade
from agflow.cascade.folder import router_of
from agflow.cascade.readme import README_FILE, ROUTER_FILE
from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError
from agflow.exporting.models import (
    CHECKED_IMAGES,
    ENDINGS,
    Signature,
    at_own_size,
    export,
    export_module,
    random_images,
)
from agflow.exporting.readme import HEAVY_ROLE, LIGHT_ROLE, PREFIX_ROLE, export_readme
from agflow.models import model_name, split
from agflow.models.resolution import image_size

EXPORT_FOLDER = FolderKind(
    "an export of a cascade",
    "export.json",
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
    ``export.json``, which names the inputs and outputs of the files, and a README that runs them
    together without torch. Each file is compared with the model first (:func:`agflow.export`).
    Experts with a shared prefix become three files: ``prefix.onnx`` from images to tokens, the
    others from tokens to logits. An older export of the same name is replaced, at once and whole; a
    folder with anything in it that agflow did not write is left alone.

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
        EXPORT_FOLDER.seal(made, {"files": files})


def _export_experts(
    cascade: Cascade,
    folder: pathlib.Path,
    ending: str,
    images: torch.Tensor | None,
    preprocessing: Preprocessing | None,
) -> list[dict]:
    files = []
    for role, model in ((LIGHT_ROLE, cascade.light), (HEAVY_ROLE, cascade.heavy)):
        file = role + ending
        export(model, folder / file, images=images, preprocessing=preprocessing)
        size = list(image_size(model))
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
