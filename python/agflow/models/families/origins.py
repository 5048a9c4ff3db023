"""Where a model is from: what makes the dense model that it was before any cut.

A library by a name (timm, torchvision, transformers), classes of torch.nn alone, or the user's own
code, which no folder can make: of such a model a copy without weights is kept in this process.
"""

# The libraries' own objects have types that they do not declare.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from agflow._utils.hooks import CAPTURE_NOTE
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models.copying import copy_of
from agflow.models.families.differences import differences
from agflow.models.families.module_trees import (
    NOTE,
    class_name,
    is_plain,
    module_of,
    own_attributes,
    to_json,
    tree_of,
)
from agflow.models.families.timm_config import config_of

Origin = dict[str, Any]
"""JSON values: ``library`` and what it makes the model by."""

OWN = "own"
_ORIGIN, _DENSE, _FUNCTION = NOTE + "origin", NOTE + "dense", NOTE + "function"
_REMEMBERED = 16
_remembered: OrderedDict[str, nn.Module] = OrderedDict()  # by key, without weights


def origin_of(model: nn.Module) -> Origin:
    """Where a model is from, as noted by :func:`note_origin` or else as it is now.

    Where a model of a library was changed into something that no description can hold, it is one
    of the user's own.

    Examples
    --------
    >>> import timm, torchvision
    >>> from torch import nn
    >>> from agflow.models.families.origins import origin_of
    >>> origin_of(timm.create_model("resnet18"))
    {'library': 'timm', 'name': 'resnet18'}
    >>> origin_of(torchvision.models.mobilenet_v2())
    {'library': 'torchvision', 'name': 'mobilenet_v2'}
    >>> origin_of(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()))["library"]
    'torch'
    """
    noted = vars(model).get(_ORIGIN)
    if noted is not None:
        return noted
    found = _of_timm(model) or _of_torchvision(model) or _of_transformers(model)
    try:
        if found is not None:
            differences(model, dense_of(found))
            return found
        return {"library": "torch", "tree": tree_of("", model)}
    except UnsupportedModelError:
        return own_origin(model)


def note_origin(model: nn.Module, origin: Origin | None = None) -> None:
    """Note on a model where it is from, before it is cut; copies keep the note.

    Of a model of the user's own the dense one is kept, too, without weights.
    """
    if origin is not None or _ORIGIN not in vars(model):
        vars(model)[_ORIGIN] = origin or origin_of(model)


def note_dense(model: nn.Module, origin: Origin, dense: nn.Module) -> None:
    """Note on a model of the user's own, which was rebuilt, where it is from."""
    vars(model)[_ORIGIN], vars(model)[_DENSE] = origin, without_weights(dense)


def note_function(model: nn.Module, spec: str) -> None:
    """Note the ``module:function`` that made a model, for what is said of its folder."""
    vars(model)[_FUNCTION] = spec


def noted_name(model: nn.Module) -> str | None:
    """The name that a noted origin has for a model."""
    return vars(model).get(_ORIGIN, {}).get("name")


def torchvision_origin(name: str, pretrained: bool) -> Origin:
    """The origin of a model that torchvision makes, with its published weights or without."""
    from torchvision import models  # loaded already, with the model

    origin = {"library": "torchvision", "name": name}
    weights = {"weights": models.get_model_weights(name).DEFAULT.name} if pretrained else {}  # pyright: ignore
    return {**origin, **weights}


def own_origin(model: nn.Module) -> Origin:
    """The origin of a model whose dense one only the user's code makes; it is remembered."""
    dense = vars(model).get(_DENSE)
    if dense is None:
        dense = vars(model)[_DENSE] = without_weights(model)
    key = fingerprint(dense)
    _remembered[key] = dense
    _remembered.move_to_end(key)
    while len(_remembered) > _REMEMBERED:
        _remembered.popitem(last=False)
    origin = {"library": OWN, "class": class_name(model), "key": key}
    function = vars(model).get(_FUNCTION)
    return {**origin, "function": function} if function else origin


def dense_of(origin: Origin) -> nn.Module:
    """The dense model of an origin; its weights have no values.

    They do where its constructor runs parts of it, such as a stem whose map it measures.

    Raises
    ------
    UnsupportedModelError
        It is of the user's own code, and nothing of it is known in this process.
    InvalidValueError
        The library is not known.
    """
    make = _MAKERS.get(origin["library"])
    if make is None:
        raise InvalidValueError(f"the library {origin['library']!r} is unknown")
    try:
        with torch.device("cpu"), _EmptyOnMeta():
            return make(origin)
    except RuntimeError:  # of torch, which finds no values where it computes
        return _whole(origin)


def _whole(origin: Origin) -> nn.Module:
    """The dense model of an origin, with values; the random numbers of the process stay."""
    with torch.device("cpu"), torch.random.fork_rng([]):
        return _MAKERS[origin["library"]](origin)


def give_constants(dense: nn.Module, origin: Origin) -> nn.Module:
    """Give values to what a dense model computes and no state dict holds, in place.

    A constructor that makes such a tensor empty and fills it later has left it without values:
    another model is then made whole, and its tensors are taken.
    """
    empty = [
        (name, key) for name, module in dense.named_modules() for key in _empty_constants(module)
    ]
    if empty:
        whole = _whole(origin)
        for name, key in empty:
            setattr(dense.get_submodule(name), key, getattr(whole.get_submodule(name), key))
    return dense


def _empty_constants(module: nn.Module) -> list[str]:
    """Names of a module's tensors that have no values, those of its state dict left out."""
    constants = {
        **{name: module._buffers[name] for name in module._non_persistent_buffers_set},
        **vars(module),
    }
    return [
        name
        for name, tensor in constants.items()
        if isinstance(tensor, torch.Tensor) and tensor.is_meta
    ]


def fingerprint(dense: nn.Module) -> str:
    """A digest of a model's modules and their plain attributes, weights left out."""
    modules = [
        [
            name,
            class_name(module),
            {
                key: to_json(value)
                for key, value in own_attributes(module).items()
                if is_plain(value)
            },
            {
                key: list(tensor.shape)
                for key, tensor in module._parameters.items()
                if tensor is not None
            },
        ]
        for name, module in dense.named_modules()
    ]
    return hashlib.sha256(json.dumps(modules, sort_keys=True).encode()).hexdigest()[:16]


def without_weights(model: nn.Module) -> nn.Module:
    """Copy a model; tensors of its state dict are on the meta device and take no memory."""
    memo: dict[int, Any] = {}
    for tensor in model.state_dict(keep_vars=True).values():
        empty = tensor.detach().to("meta")
        memo[id(tensor)] = (
            nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty
        )
    for note in (_DENSE, _ORIGIN):
        memo[id(vars(model).get(note))] = None
    copied = copy_of(model, memo)
    for note in (_DENSE, _ORIGIN):
        vars(copied).pop(note, None)
    for module in copied.modules():  # they may hold anything
        vars(module).pop(CAPTURE_NOTE, None)
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            hooks.clear()
    return copied


# Origins by library


def _of_timm(model: nn.Module) -> Origin | None:
    name = config_of(model).get("architecture")
    if not name or not type(model).__module__.startswith("timm.models"):
        return None
    import timm  # loaded already, with the model

    return {"library": "timm", "name": name} if timm.is_model(name) else None


def _of_torchvision(model: nn.Module) -> Origin | None:
    """The model function whose dense model is most like ``model``: none is noted by torchvision."""
    module = type(model).__module__
    if not module.startswith("torchvision.models."):
        return None
    shapes = set(_shapes(model).items())
    alike = {
        name: len(shapes & theirs) / len(shapes | theirs)
        for name, kind, theirs in map(_torchvision_shapes, _torchvision_names(module))
        if kind is type(model)
    }
    if not alike:
        return None
    return {"library": "torchvision", "name": max(alike, key=lambda name: alike[name])}


@cache
def _torchvision_names(module: str) -> tuple[str, ...]:
    from torchvision import models

    return tuple(
        name
        for name in models.list_models(module=models)
        if models.get_model_builder(name).__module__ == module
    )


@cache
def _torchvision_shapes(name: str) -> tuple[str, type, frozenset]:
    with _EmptyOnMeta():
        model = _make_torchvision({"name": name})
    return name, type(model), frozenset(_shapes(model).items())


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _of_transformers(model: nn.Module) -> Origin | None:
    if not type(model).__module__.startswith("transformers.models."):
        return None
    import transformers  # loaded already, with the model

    name = type(model).__name__
    if getattr(transformers, name, None) is not type(model):
        return None
    values = json.loads(model.config.to_json_string(use_diff=False))
    for private in ("_name_or_path", "transformers_version"):
        values.pop(private, None)
    return {"library": "transformers", "class": name, "config": values}


def _make_timm(origin: Origin) -> nn.Module:
    import timm

    return timm.create_model(origin["name"])


def _make_torchvision(origin: Origin) -> nn.Module:
    from torchvision import models

    if origin["name"] not in models.list_models(module=models):
        raise InvalidValueError(f"torchvision has no classifier {origin['name']!r}")
    # Else these two draw weights for minutes, and warn.
    options = {"init_weights": False} if origin["name"] in ("googlenet", "inception_v3") else {}
    return models.get_model(origin["name"], weights=None, **options)


def _make_transformers(origin: Origin) -> nn.Module:
    import transformers

    name = origin["class"]
    kind = getattr(transformers, name)
    if not (name.isidentifier() and isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InvalidValueError(f"transformers has no model {name!r}")
    return kind(kind.config_class.from_dict(origin["config"]))


def _make_torch(origin: Origin) -> nn.Module:
    return module_of(origin["tree"])


def _make_own(origin: Origin) -> nn.Module:
    dense = _remembered.get(origin["key"])
    if dense is None:
        raise UnsupportedModelError(how_to_load(origin))
    return copy_of(dense)


def how_to_load(origin: Origin) -> str:
    """What is to be passed to load a model of the user's own."""
    return (
        f"the expert is a {origin['class']}, a class of your own that no folder can make: give the "
        f"dense model that it was cut from, or a function that makes it: "
        f"agflow.load(folder, model={what_to_give(origin)}), or --model "
        f"{origin.get('function') or 'module:function'} --weights FOLDER"
    )


def what_to_give(origin: Origin) -> str:
    """What a user passes to have a model of their own loaded, as Python code."""
    function, kind = origin.get("function"), origin["class"].rpartition(".")[2]
    return f'"{function}"' if function else f"{kind}(...)"


_MAKERS: dict[str, Callable[[Origin], nn.Module]] = {
    "timm": _make_timm,
    "torchvision": _make_torchvision,
    "transformers": _make_transformers,
    "torch": _make_torch,
    OWN: _make_own,
}


class _EmptyOnMeta(TorchFunctionMode):
    """Weights, which layers make empty and then draw, take no memory; what is computed is real."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        named = dict(kwargs or {})
        if function is torch.empty and named.get("device") is None:
            named["device"] = "meta"
        return function(*args, **named)
