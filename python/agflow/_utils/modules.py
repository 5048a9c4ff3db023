"""Submodules by name, with the types that torch's own annotations leave open."""

from __future__ import annotations

from typing import cast

from torch import nn


def linear_at(model: nn.Module, name: str) -> nn.Linear:
    """The submodule ``name`` as what it is: an ``nn.Linear``, or a module with its attributes."""
    return cast(nn.Linear, model.get_submodule(name))


def put(module: nn.Module, name: str, new: nn.Module) -> None:
    """Replace the submodule ``name`` of ``module``."""
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)
