"""The README of an expert's folder: what it holds, and how it is loaded with and without agflow."""

from __future__ import annotations

from typing import Any

from torch import nn

from agflow.models.families.origins import OWN, what_to_give
from agflow.models.registry import adapter_for
from agflow.models.resolution import image_size
from agflow.models.standalone import standalone_code

_CROPS = {
    "center": "the short side resized to {size} pixels ({filter}), the middle {crop} cut out",
    "squash": "all resized to {whole} pixels ({filter}), the middle {crop} cut out",
    "border": "the long side resized to {size} pixels ({filter}), the rest of {crop} filled",
}


def expert_readme(model: nn.Module, config: dict[str, Any]) -> str:
    """The Markdown text of README.md; ``config`` is the content of config.json."""
    architecture = config["architecture"]
    size = image_size(model)
    height, width = size
    takes = (
        f"images of any size, which it brings to {height}x{width} itself"
        if config["resizes"]
        else f"images of {height}x{width}"
    )
    code = standalone_code(architecture, size if config["resizes"] else None)
    return (
        f"# {config['name']}: expert for agflow\n\n"
        f"{config['macs'] / 1e6:.1f} M MACs per image, {config['params'] / 1e6:.2f} M parameters; "
        f"takes {takes}.\n\n{_counts(model, architecture)}\n"
        "`config.json` holds the architecture, the preprocessing and the SHA-256 of every file; "
        "`plan.arrow`, where present, says which units of the dense model stayed.\n\n"
        f"```python\nimport agflow\n\n{_loading(architecture)}\n```\n"
        f"{_images(config['preprocessing'])}{_without_agflow(code)}"
    )


def _counts(model: nn.Module, architecture: dict[str, Any]) -> str:
    """What is left, by layer; of a traced model the tensors that are not those of the dense one."""
    if architecture["family"] == "traced":
        shapes = architecture["changes"]["shapes"].items()
        return "".join(f"- {name}: {size or 'none'}\n" for name, size in shapes)
    layers = adapter_for(model).layers(model)
    units = {
        group: [layer.units for layer in layers if layer.kind == group]
        for group in sorted({layer.kind for layer in layers})
    }
    return "".join(f"- {group}, units by layer: {counts}\n" for group, counts in units.items())


def _loading(architecture: dict[str, Any]) -> str:
    """The call that loads the folder."""
    origin = architecture.get("origin", {})
    if origin.get("library") != OWN:
        return 'model = agflow.load("path of this folder")'
    return f'model = agflow.load("path of this folder", model={what_to_give(origin)})'


def _images(preprocessing: dict[str, Any] | None) -> str:
    """What the images need, in words."""
    if preprocessing is None:
        return ""
    height, width = preprocessing["input_size"]
    share = preprocessing["crop_pct"]
    sides = [round(side / share) for side in (height, width)]
    resized = _CROPS[preprocessing["crop_mode"]].format(
        size=min(sides),
        whole="{}x{}".format(*sides),
        crop=f"{height}x{width}",
        filter=preprocessing["interpolation"],
    )
    mean, std = (list(preprocessing[name]) for name in ("mean", "std"))
    colours = "grey" if len(mean) == 1 else "RGB"
    return (
        f"\nImages are {colours}, {resized}, scaled to [0, 1], less mean {mean}, over std {std}.\n"
    )


def _without_agflow(code: str | None) -> str:
    if code is None:
        return ""
    return (
        "\nWithout agflow, in this folder (nothing in it is executed but this code):\n\n"
        f"```python\n{code}```\n"
    )
