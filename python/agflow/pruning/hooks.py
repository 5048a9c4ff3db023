"""Hooks that record, replace or stop submodules while a network runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from agflow._utils.hooks import temporary_hooks

Calls = dict[str, tuple[Any, Any]]
"""By module name, the first input and the output of its last call."""


class StopForward(Exception):
    """Raised by a hook to end a forward pass as soon as what it looked for is known."""


@contextmanager
def recorded_calls(model: nn.Module, names: Iterable[str]) -> Iterator[Calls]:
    """Yield a dictionary that holds the last call of each of the named modules, as they run."""
    calls: Calls = {}
    with temporary_hooks(
        model.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, name=name: calls.__setitem__(name, (inputs[0], output))
        )
        for name in names
    ):
        yield calls


@contextmanager
def replaced_outputs(model: nn.Module, outputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let the named modules return the given outputs without computing anything."""
    modules = {model.get_submodule(name): output for name, output in outputs.items()}
    for module, output in modules.items():
        # An attribute of the instance hides the method of its class.
        module.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for module in modules:
            del module.forward
