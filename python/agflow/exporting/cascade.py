"""A cascade as files for other runtimes: both experts, the router and a README."""

from __future__ import annotations

import json
import os
import pathlib

import torch

from agflow._utils.files import atomic_directory, write
from agflow.cascade.cascade import Cascade
from agflow.cascade.folder import (
    FORMAT,
    HEAVY,
    LIGHT,
    README,
    ROUTER,
    cascade_summary,
    router_of,
)
from agflow.cascade.router import Router
from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError
from agflow.exporting.models import CHECKED_IMAGES, FORMATS, export, export_module
from agflow.models import adapter_for, model_name, split
from agflow.models.resizing import resize_of
from agflow.models.resolution import image_size

EXPORTED = "export.json"


def export_cascade(
    cascade: Cascade,
    folder: str | os.PathLike,
    *,
    format: str = "onnx",
    images: torch.Tensor | None = None,
    preprocessing: Preprocessing | None = None,
) -> None:
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
    router = router_of(cascade)
    if format not in FORMATS:
        raise InvalidValueError(f"the format is {format!r}, expected one of {', '.join(FORMATS)}")
    with atomic_directory(folder, "an export of a cascade", EXPORTED) as made:
        files = (
            _export_halves(cascade, made, FORMATS[format], images, preprocessing)
            if cascade.shared_blocks
            else _export_experts(cascade, made, FORMATS[format], images, preprocessing)
        )
        router.save(made / ROUTER)
        write(
            made / EXPORTED,
            (json.dumps({"format": FORMAT, "files": files}, indent=2) + "\n").encode(),
        )
        write(made / README, _export_readme(cascade, router, files).encode())


def _export_experts(
    cascade: Cascade,
    folder: pathlib.Path,
    ending: str,
    images: torch.Tensor | None,
    preprocessing: Preprocessing | None,
) -> list[dict]:
    files = []
    for role, model in ((LIGHT, cascade.light), (HEAVY, cascade.heavy)):
        export(model, folder / (role + ending), images=images, preprocessing=preprocessing)
        files.append(
            {
                "file": role + ending,
                "takes": "images",
                "gives": "logits",
                "image_size": list(image_size(model)),
            }
        )
    return files


def _export_halves(
    cascade: Cascade,
    folder: pathlib.Path,
    ending: str,
    images: torch.Tensor | None,
    preprocessing: Preprocessing | None,
) -> list[dict]:
    heavy = cascade.heavy
    (prefix, heavy_rest), (_, light_rest) = (
        split(heavy, cascade.shared_blocks),
        split(cascade.light, cascade.shared_blocks),
    )
    parameter = next(heavy.parameters())
    if images is None:
        images = torch.randn(
            CHECKED_IMAGES,
            *adapter_for(heavy).input_size(heavy),
            generator=torch.Generator().manual_seed(0),
        )
    resize = resize_of(heavy)
    images = (
        images[:CHECKED_IMAGES].to(parameter)
        if resize is None
        else resize.resized(images[:CHECKED_IMAGES].to(parameter))
    )
    with torch.no_grad():
        tokens = prefix(images)
    about = {
        "shared_blocks": cascade.shared_blocks,
        "image_size": list(image_size(heavy)),
        "preprocessing": preprocessing and preprocessing.to_dict(),
    }
    export_module(
        prefix,
        folder / f"prefix{ending}",
        images,
        {"name": model_name(heavy), **about},
        outlet="tokens",
    )
    export_module(
        light_rest,
        folder / (LIGHT + ending),
        tokens,
        {"name": model_name(cascade.light), **about},
        inlet="tokens",
    )
    export_module(
        heavy_rest,
        folder / (HEAVY + ending),
        tokens,
        {"name": model_name(heavy), **about},
        inlet="tokens",
    )
    return [
        {
            "file": f"prefix{ending}",
            "takes": "images",
            "gives": "tokens",
            "image_size": about["image_size"],
        },
        *({"file": role + ending, "takes": "tokens", "gives": "logits"} for role in (LIGHT, HEAVY)),
    ]


def _export_readme(cascade: Cascade, router: Router, files: list[dict]) -> str:
    light, heavy = (
        next(entry["file"] for entry in files if entry["file"].startswith(role))
        for role in (LIGHT, HEAVY)
    )
    size = lambda entry: (
        " of {}x{} pixels".format(*entry["image_size"]) if "image_size" in entry else ""
    )
    listed = "".join(
        f"- `{entry['file']}`: {entry['takes']}{size(entry)} to {entry['gives']}\n"
        for entry in files
    )
    shared = cascade.shared_blocks
    resized = image_size(cascade.light) != image_size(cascade.heavy)
    return (
        f"# {model_name(cascade.heavy)}: cascade for other runtimes\n\n{cascade_summary(cascade, router)}{listed}- `{ROUTER}`: the calibrated decision\n\n"
        + (
            "The light expert looks at smaller images: shrink the images of the heavy one bilinear and antialiased.\n\n"
            if resized
            else ""
        )
        + "An answer takes four steps. The second and the fourth need agflow, without torch.\n\n"
        f"1. {f'Run the prefix on the images, then `{light}` on its tokens' if shared else f'Run `{light}` on the images'}.\n"
        f"2. Ask which images escalate: `agflow decide --router {ROUTER} --light light.arrow --output decisions.arrow`.\n"
        f"3. Run `{heavy}` on {'the tokens of these images' if shared else 'these images'}, in their order.\n"
        f"4. Ask for the answers: `agflow decide --router {ROUTER} --light light.arrow --heavy heavy.arrow --output answers.arrow`.\n\n"
        'The files of logits are written by `agflow.cascade.Logits.of(logits).save("light.arrow")`, those of decisions read by any Arrow '
        "tool. A Go program does without files: package `agflow/core/routing`, `Router.Decide` and `Router.Answer`.\n"
    )
