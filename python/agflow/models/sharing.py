"""Parameters and buffers that lie in several places of a model: shared modules and tied weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import nn


def shared_names(model: nn.Module) -> list[tuple[str, ...]]:
    """The names of each tensor of a model that has several, the first one first.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.sharing import shared_names
    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    >>> model[2].weight = model[0].weight
    >>> shared_names(model)
    [('0.weight', '2.weight')]
    """
    names: dict[int, list[str]] = {}
    for name, tensor in itertools.chain(
        model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)
    ):
        names.setdefault(id(tensor), []).append(name)
    return [tuple(same) for same in names.values() if len(same) > 1]


def modules_by_first_name(model: nn.Module) -> dict[str, str]:
    """By name of a module, the first name that it has; the model itself is "".

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.sharing import modules_by_first_name
    >>> layer = nn.Linear(2, 2)
    >>> modules_by_first_name(nn.Sequential(layer, nn.ReLU(), layer))
    {'': '', '0': '0', '1': '1', '2': '0'}
    """
    first: dict[nn.Module, str] = {}
    return {
        name: first.setdefault(module, name)
        for name, module in model.named_modules(remove_duplicate=False)
    }


def tied_again(tensors: Mapping[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
    """A state dict that keeps shared what a model shares when it is assigned; each name is in it.

    Parameters
    ----------
    tensors : by name; what the model shares may stand under one of its names only

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.sharing import tied_again
    >>> model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    >>> model[1].weight = model[0].weight
    >>> state = tied_again({"0.weight": torch.ones(1, 1)}, model)
    >>> state["1.weight"] is state["0.weight"]
    True
    """
    own, state = dict(model.state_dict(keep_vars=True)), dict(tensors)
    for names in shared_names(model):
        given = next((state[name] for name in names if name in state), None)
        if given is not None:
            old = own.get(names[0])
            if isinstance(old, nn.Parameter):
                given = nn.Parameter(given, requires_grad=old.requires_grad)
            state.update((name, given) for name in names if name in own)
    return state
