"""Modules of torch.nn, timm.layers and torchvision.ops as JSON values, and built again from them.

A module is built without its constructor: its class, its plain attributes and the shapes of its
tensors are all of it. No other class is ever named, imported or built.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import nn

from agflow._utils.hooks import CAPTURE_NOTE
from agflow.errors import UnsupportedModelError
from agflow.models.sharing import shared_names

_PLACES = "torch.nn.modules.", "timm.layers.", "torchvision.ops."
_OF_EVERY_MODULE = {*vars(nn.Module())}
NOTE = "_agflow_"
"""How the names of attributes begin in which agflow notes something of a model."""
_KNOWN_ELSEWHERE = {"pretrained_cfg", "default_cfg", "class_names", "config", CAPTURE_NOTE}


def tree_of(name: str, module: nn.Module) -> dict[str, Any]:
    """The JSON values of a module and of all that it holds.

    Raises
    ------
    UnsupportedModelError
        A module is of another place, or holds what JSON cannot.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.families.module_trees import module_of, tree_of
    >>> tree = tree_of("head", nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 2)))
    >>> module_of(tree)
    Sequential(
      (0): Dropout(p=0.5, inplace=False)
      (1): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    place = class_name(module)
    if not place.startswith(_PLACES) or "<" in place:
        raise UnsupportedModelError(
            f"{name or 'the model'} is a {type(module).__name__}, a class that no library has"
        )
    if module._non_persistent_buffers_set:
        unsaved = next(iter(module._non_persistent_buffers_set))
        raise UnsupportedModelError(f"{name}.{unsaved} is a buffer that is not saved")
    shared = shared_names(module)
    if shared:
        raise UnsupportedModelError(f"{' and '.join(shared[0])} are shared, which no tree can hold")
    attributes = {}
    for key, value in own_attributes(module).items():
        if not is_plain(value):
            raise UnsupportedModelError(
                f"{name}.{key} is a {type(value).__name__}, which no description can hold"
            )
        attributes[key] = to_json(value)
    return {
        "class": place,
        "attributes": attributes,
        "parameters": _shapes(module._parameters),
        "buffers": _shapes(module._buffers),
        "children": {
            key: None if child is None else tree_of(f"{name}.{key}".lstrip("."), child)
            for key, child in module._modules.items()
        },
    }


def module_of(tree: dict[str, Any]) -> nn.Module:
    """Build a module from the values of :func:`tree_of`; its tensors have no values yet.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, ImportError
        They are no such values.
    """
    place = tree["class"]
    if not place.startswith(_PLACES):
        raise ValueError(f"{place} is no class of torch.nn, timm.layers or torchvision.ops")
    file, _, name = place.rpartition(".")
    kind = getattr(importlib.import_module(file), name)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise TypeError(f"{place} is no module")
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    for key, value in tree["attributes"].items():
        vars(module)[key] = from_json(value)
    for key, shape in tree["parameters"].items():
        module.register_parameter(key, None if shape is None else nn.Parameter(torch.empty(shape)))
    for key, shape in tree["buffers"].items():
        module.register_buffer(key, None if shape is None else torch.empty(shape))
    for key, child in tree["children"].items():
        module.add_module(key, None if child is None else module_of(child))
    return module


def class_name(module: nn.Module) -> str:
    """The full name of a module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def own_attributes(module: nn.Module) -> dict[str, Any]:
    """What an instance holds beside its modules and tensors, hooks and notes left out."""
    return {
        key: value
        for key, value in vars(module).items()
        if key not in _OF_EVERY_MODULE and key not in _KNOWN_ELSEWHERE and not key.startswith(NOTE)
    }


def is_plain(value: Any) -> bool:
    """Whether a value is one of JSON's, or a tuple of such."""
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple, torch.Size) and all(map(is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)


def to_json(value: Any) -> Any:
    """A plain value for JSON, which has no tuples."""
    if isinstance(value, tuple):
        return {"tuple": [to_json(item) for item in value]}
    return [to_json(item) for item in value] if isinstance(value, list) else value


def from_json(value: Any) -> Any:
    """The plain value that :func:`to_json` was given."""
    if isinstance(value, dict):
        return tuple(from_json(item) for item in value["tuple"])
    return [from_json(item) for item in value] if isinstance(value, list) else value


def _shapes(tensors: dict[str, Any]) -> dict[str, list[int] | None]:
    return {
        name: None if tensor is None else list(tensor.shape) for name, tensor in tensors.items()
    }
