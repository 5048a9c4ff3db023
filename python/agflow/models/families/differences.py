"""What tells a model from the dense one that its library makes, as JSON values.

Sizes of tensors, numbers of modules, modules that were put in, taken out or became others: whoever
changed them, a cut or the user. Applied to the dense model they give the model again.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from agflow.errors import UnsupportedModelError
from agflow.models.families.module_trees import (
    class_name,
    from_json,
    is_plain,
    module_of,
    own_attributes,
    to_json,
    tree_of,
)
from agflow.models.sharing import shared_names


def differences(model: nn.Module, dense: nn.Module) -> dict[str, Any]:
    """What :func:`apply` does to ``dense`` so that it is as ``model``, but for weights.

    Returns
    -------
    ``modules``: by name what stands there instead (:mod:`.module_trees`), or null; ``gone``: names
    of modules that are not there; ``attributes``: by module and name; ``shapes``: by tensor, null
    for one that is not there

    Raises
    ------
    UnsupportedModelError
        The model holds something that no description can hold.

    Examples
    --------
    >>> import timm
    >>> from agflow.models.families.differences import differences
    >>> make = timm.create_model
    >>> differences(make("resnet18", num_classes=7), make("resnet18"))["shapes"]
    {'fc.weight': [7, 512], 'fc.bias': [7]}
    """
    found: dict[str, Any] = {"modules": {}, "gone": [], "attributes": {}, "shapes": {}}
    if type(model) is not type(dense):
        raise UnsupportedModelError(
            f"it is a {class_name(model)}, and the dense model a {class_name(dense)}"
        )
    _compare("", model, dense, found)
    _check_sharing(model, dense)
    return found


def apply(changes: dict[str, Any], dense: nn.Module) -> nn.Module:
    """Make of ``dense``, in place, the model that the differences are of; sizes, not weights.

    Raises
    ------
    ValueError, KeyError, TypeError, AttributeError, ImportError
        They are no differences to this model.
    """
    for name, tree in changes["modules"].items():
        owner, leaf = _owner(dense, name)
        owner._modules[leaf] = None if tree is None else module_of(tree)
    for name in changes["gone"]:
        owner, leaf = _owner(dense, name)
        del owner._modules[leaf]
    for name, values in changes["attributes"].items():
        module = dense.get_submodule(name)
        for key, value in values.items():
            if key not in own_attributes(module) and hasattr(module, key):
                raise ValueError(f"{name}.{key} is no number of its module")
            vars(module)[key] = from_json(value)
    _resize(changes["shapes"], dense)
    return dense


def _resize(shapes: dict[str, list[int] | None], dense: nn.Module) -> None:
    """Give tensors new shapes, in place; those that are shared stay so."""
    made: dict[Any, Any] = {}  # by old one
    for name, shape in shapes.items():
        owner, leaf = _owner(dense, name)
        old = getattr(owner, leaf, None)
        if shape is None:
            new = None
        elif leaf in owner._buffers:
            new = made.get(old, torch.empty(shape))
        else:
            new = made.get(old, nn.Parameter(torch.empty(shape)))
        if old is not None and new is not None:
            made[old] = made[new] = new
        if leaf in owner._buffers:
            owner._buffers[leaf] = new
        else:
            vars(owner).pop(leaf, None)
            owner.register_parameter(leaf, new)


def _compare(name: str, model: nn.Module, dense: nn.Module, found: dict[str, Any]) -> None:
    changed = dict(_changed_attributes(name, own_attributes(model), own_attributes(dense)))
    if changed:
        found["attributes"][name] = changed
    for table in ("_parameters", "_buffers"):
        mine, theirs = getattr(model, table), getattr(dense, table)
        for key in {**theirs, **mine}:
            shape, other = (_shape(tensors.get(key)) for tensors in (mine, theirs))
            if shape != other:
                found["shapes"][_join(name, key)] = shape
    for key in {**dense._modules, **model._modules}:
        path = _join(name, key)
        if key not in model._modules:
            found["gone"].append(path)
            continue
        mine, theirs = model._modules[key], dense._modules.get(key)
        if mine is None or theirs is None or type(mine) is not type(theirs):
            if mine is not theirs or key not in dense._modules:
                found["modules"][path] = None if mine is None else tree_of(path, mine)
        else:
            _compare(path, mine, theirs, found)


def _check_sharing(model: nn.Module, dense: nn.Module) -> None:
    """Refuse a model that shares tensors which the dense one has not shared, or the reverse."""
    mine, theirs = (
        {name: names for names in shared_names(each) for name in names} for each in (model, dense)
    )
    present = {*dict(model.named_parameters(remove_duplicate=False))}
    present |= {*dict(model.named_buffers(remove_duplicate=False))}
    for name in {**mine, **theirs}:
        expected = [other for other in theirs.get(name, (name,)) if other in present]
        if name in present and [*mine.get(name, (name,))] != expected:
            raise UnsupportedModelError(
                f"{name} is shared by hand with other modules, which no description can hold"
            )


def _changed_attributes(
    name: str, mine: dict[str, Any], theirs: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    for key, value in mine.items():
        other = theirs.get(key)
        if is_plain(value):
            if key not in theirs or type(value) is not type(other) or value != other:
                yield key, to_json(value)
        elif key not in theirs or type(value) is not type(other) or _is_another(value, other):
            raise UnsupportedModelError(
                f"{_join(name, key)} is a {type(value).__name__} that was set by hand, which no "
                "description can hold"
            )


def _is_another(value: Any, other: Any) -> bool:
    """Whether functions or classes are not the same ones; other objects cannot be compared."""
    return (inspect.isroutine(value) or isinstance(value, type)) and (
        getattr(value, "__qualname__", value) != getattr(other, "__qualname__", other)
    )


def _shape(tensor: torch.Tensor | None) -> list[int] | None:
    return None if tensor is None else list(tensor.shape)


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, leaf = name.rpartition(".")
    return model.get_submodule(owner), leaf
