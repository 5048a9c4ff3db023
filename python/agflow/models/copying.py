"""Copies of users' models, without what would still lead to the original."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from agflow._utils.modes import forget_caches
from agflow.errors import UnsupportedModelError
from agflow.models.adapter import Adapter

_TABLES = ("_parameters", "_buffers", "_modules")
_HOOKS = "_hooks"  # how the names of a module's tables of hooks end


def own_methods(module: nn.Module) -> list[str]:
    """Return the methods that an instance has in place of those of its class.

    One of its class that it chose itself (``self.forward = self.forward_slicing``) is none of them.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.copying import own_methods
    >>> layer = nn.Linear(2, 2)
    >>> layer.forward = lambda x: x
    >>> own_methods(layer)
    ['forward']
    """
    return [
        name
        for name, value in vars(module).items()
        if callable(value)
        and inspect.isroutine(inspect.getattr_static(type(module), name, None))
        and not _chosen(module, value)
    ]


def _chosen(module: nn.Module, method: Any) -> bool:
    """Whether a method is one of the module's class, bound to the module."""
    function = getattr(method, "__func__", None)
    return (
        function is not None
        and method.__self__ is module
        and getattr(type(module), method.__name__, None) is function
    )


@contextmanager
def plain(model: nn.Module) -> Iterator[None]:
    """Set aside, while entered, what instances have in place of their class's methods.

    Modules then run their classes' own code, and not what ``module.compile()`` made of it, so that
    hooks registered meanwhile fire and a copy cannot run the original's modules.
    """
    aside = [
        (module, name, vars(module)[name])
        for module in model.modules()
        for name in {*own_methods(module), "_compiled_call_impl"} & vars(module).keys()
    ]
    for module, name, _ in aside:
        del vars(module)[name]
    try:
        yield
    finally:
        for module, name, value in aside:
            vars(module)[name] = value


@contextmanager
def watched(adapter: Adapter, model: nn.Module) -> Iterator[None]:
    """Let hooks fire on every module that has a tap, while entered: see Adapter.watchable."""
    with plain(model), adapter.watchable(model):
        yield


def copy_of(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """Copy a model; methods of the instances' own are left out (:func:`plain`).

    Parameters
    ----------
    memo : as of :func:`copy.deepcopy`: by id, what stands for an object of the original

    Raises
    ------
    UnsupportedModelError
        The model holds something that cannot be copied; the message names it.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.copying import copy_of
    >>> layer = nn.Linear(2, 2)
    >>> copy_of(layer).weight.equal(layer.weight)
    True
    """
    forget_caches(model)
    with plain(model):
        try:
            return copy.deepcopy(model, _with_graph_modules(model, memo or {}))
        except Exception as error:  # each type of attribute raises its own kind
            raise UnsupportedModelError(
                f"{type(model).__name__} cannot be copied: {_obstacle(model, error)}"
            ) from error


def _with_graph_modules(model: nn.Module, memo: dict[int, Any]) -> dict[int, Any]:
    """The memo with copies of the modules that torch.fx made.

    Their own way of copying makes another class and leaves out what a user or a note set.
    """
    graphs = [module for module in model.modules() if isinstance(module, torch.fx.GraphModule)]
    for module in graphs:
        memo[id(module)] = object.__new__(type(module))
        memo[id(module.graph)] = module.graph  # which nobody changes
    for module in graphs:
        vars(memo[id(module)]).update(copy.deepcopy(vars(module), memo))
    return memo


def _obstacle(model: nn.Module, error: Exception) -> str:
    """Name the attribute or hook that cannot be copied."""
    tables = (*model.modules(), *model.parameters())
    for where, value in _belongings(model):
        try:
            copy.deepcopy(value, {id(item): item for item in tables})
        except Exception as found:  # as above
            if "graph leaves" in str(found):
                return f"{where} is a tensor of a graph, or holds one: detach or delete it first"
            return f"{where} holds what Python cannot copy ({_first_line(found)}): remove it first"
    return _first_line(error)


def _belongings(model: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in model.named_modules():
        place = f"{name}." if name else "model."
        for key, value in vars(module).items():
            if key.endswith(_HOOKS) and isinstance(value, dict):
                for hook in value.values():
                    kind = getattr(hook, "__qualname__", type(hook).__name__)
                    yield f"the hook {kind} in {place}{key}", hook
            elif key == "_buffers":
                yield from ((f"{place}{buffer}", tensor) for buffer, tensor in value.items())
            elif key not in _TABLES:
                yield f"{place}{key}", value


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
