"""What timm knows of a model's images and classes, ``pretrained_cfg``, kept through changes.

timm's functions read it: ``timm.data.resolve_model_data_config`` for the preprocessing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

# Of the weights that a model was made from: a path of that machine, tensors, and names of classes,
# which have a place of their own.
_LEFT_OUT = {"file", "state_dict", "label_names", "label_descriptions"}


def set_config(model: nn.Module, config: Mapping[str, Any]) -> None:
    """Set timm's config of ``model``; an older name of timm's for it, too."""
    vars(model)["pretrained_cfg"] = vars(model)["default_cfg"] = dict(config)


def config_of(model: nn.Module) -> dict[str, Any]:
    """Return timm's config of ``model``; {} for one that timm did not create."""
    return dict(getattr(model, "pretrained_cfg", None) or {})


def change_config(model: nn.Module, **values: Any) -> None:
    """Change values of the config, where the model has one; its copies keep theirs."""
    config = config_of(model)
    if config:
        set_config(model, {**config, **values})


def names_of(model: nn.Module) -> list[str] | None:
    """The names of the classes that the weights were published with; None where none are known.

    For the classes of ImageNet they are WordNet ids.
    """
    published = config_of(model)
    if published.get("num_classes") is None:
        return None
    from timm.data import ImageNetInfo, infer_imagenet_subset  # seconds to import

    subset = infer_imagenet_subset(published)
    if subset is not None and not published.get("label_names"):
        return ImageNetInfo(subset).label_names()
    return published.get("label_names")


def plain_config(model: nn.Module, classes: int) -> dict[str, Any]:
    """Return the config in JSON values, with the number of classes that the model has.

    JSON has no tuples: ``tuples`` names the values that were.

    Examples
    --------
    >>> import timm
    >>> from agflow.models.families.timm_config import plain_config
    >>> config = plain_config(timm.create_model("vit_tiny_patch16_224"), 1000)
    >>> config["values"]["input_size"], "input_size" in config["tuples"]
    ([3, 224, 224], True)
    """
    values, tuples = {}, []
    for name, value in config_of(model).items():
        plain = value.tolist() if hasattr(value, "tolist") else value  # of NumPy or torch
        if name in _LEFT_OUT or not _is_json(plain):
            continue
        values[name] = list(plain) if isinstance(plain, tuple) else plain
        if isinstance(plain, tuple):
            tuples.append(name)
    if "num_classes" in values:
        values["num_classes"] = classes
    return {"values": values, "tuples": tuples}


def restored_config(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config that :func:`plain_config` made JSON values of.

    Raises
    ------
    ValueError, KeyError, TypeError
        It is none.
    """
    config = {**plain["values"]}
    for name in plain["tuples"]:
        config[name] = tuple(config[name])
    return config


def _is_json(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)
