"""Entry points of the ``agflow`` command: models and cascades for other runtimes."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from agflow._utils.files import check_file
from agflow.commands.entry import command, dataset_of, load_role, loader_of

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from agflow.cascade import Cascade
    from agflow.data import Preprocessing

_QUANTISING_SHARE, _MOST_QUANTISING = 0.25, 640
"""Images of a cascade's data that quantise its experts; the others calibrate the threshold."""


@command
def export(options: dict) -> dict:
    """Write a model as ONNX or as torch's ExportedProgram; see :func:`agflow.export`."""
    if options.get("cascade"):
        return _export_cascade(options)
    from agflow.exporting import export
    from agflow.exporting.example_images import CHECKED_IMAGES

    check_file(options["output"], "output")
    model, preprocessing, name = load_role(options, "model")
    images, quantize = None, options.get("quantize")
    if options.get("data") and quantize:
        images = loader_of(options, preprocessing, model)
    elif options.get("data"):
        few = {**options, "limit": CHECKED_IMAGES, "batch_size": CHECKED_IMAGES}
        images, _ = next(iter(loader_of(few, preprocessing, None)))
    difference = export(
        model,
        options["output"],
        format=options.get("format"),
        images=images,
        preprocessing=preprocessing,
        opset=options["opset"],
        quantize=quantize,
    )
    found = {"output": options["output"], "difference": difference}
    said = f"its logits differ from torch's by {difference:.1e} of the largest"
    if quantize:
        said, found["quantization"] = _quantization(pathlib.Path(options["output"]))
    return {"summary": f"{options['output']}: {name}; {said}", **found}


def _export_cascade(options: dict) -> dict:
    """Write a cascade; of an int8 one the threshold is calibrated on the files."""
    from dataclasses import asdict

    from agflow._utils.folders import check_folder
    from agflow.cascade.export_file import EXPORT_FOLDER
    from agflow.cascade.file_names import HEAVY_FOLDER
    from agflow.cascade.folder import load_cascade
    from agflow.exporting import HeldOutImages, export_cascade
    from agflow.models import expert_preprocessing

    output, quantize = pathlib.Path(options["output"]), options.get("quantize")
    check_folder(output, EXPORT_FOLDER)
    cascade = load_cascade(options["cascade"])
    preprocessing = expert_preprocessing(pathlib.Path(options["cascade"]) / HEAVY_FOLDER)
    given = {"format": options.get("format") or "onnx", "preprocessing": preprocessing}
    if quantize:
        quantising, held_out = _parts(options, cascade, preprocessing)
        held = HeldOutImages(held_out, options.get("tolerance"))
        given |= {"quantize": quantize, "images": quantising, "held_out": held}
    elif options.get("data"):
        given["images"], _ = next(iter(loader_of(options, preprocessing, None)))
    router = export_cascade(cascade, output, **given)
    lines = [f"{output}: {router.counts.line}; {router.rule}"]
    found = {}
    if quantize:
        for role in ("light", "heavy"):
            said, found[role] = _quantization(output / f"{role}.onnx")
            lines.append(f"{role}.onnx: {said}")
        lines.append(f"{output}/README.md compares it with the float cascade")
    return {
        "summary": "\n".join(lines),
        "output": options["output"],
        "verdict": router.verdict,
        "router": asdict(router),
        **({"quantization": found} if found else {}),
    }


def _parts(
    options: dict, cascade: Cascade, preprocessing: Preprocessing
) -> tuple[DataLoader, DataLoader]:
    """Loaders of the images that quantise and of those that calibrate, drawn by the seed."""
    from torch.utils.data import Subset

    from agflow.data import image_loader
    from agflow.data.held_out_images import hold_out

    images = dataset_of(options, preprocessing, cascade.heavy)
    wanted = max(1, min(_MOST_QUANTISING, round(_QUANTISING_SHARE * len(images))))
    parts = hold_out(len(images), 1 - wanted / max(len(images), 1), options["seed"])
    quantising, held_out = (
        image_loader(Subset(images, sorted(part)), options["batch_size"]) for part in parts
    )
    return quantising, held_out


def _quantization(path: pathlib.Path) -> tuple[str, dict]:
    """What an int8 file says of itself, for people and for machines."""
    from agflow._utils.onnx_session import OnnxSession
    from agflow.exporting import Quantization

    values = OnnxSession(path).metadata["quantization"]
    return str(Quantization.of(values)), values
