"""What torch.compile leaves to Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def outside_graphs(function: Function) -> Function:
    """Decorate a function that no graph takes in: ``torch.compiler.disable``, with its type."""
    return cast(Function, torch.compiler.disable(function))


def compiled_inside(function: Function) -> Function:
    """Decorate a function that no graph takes in, though the modules it calls are compiled."""
    return cast(Function, torch.compiler.disable(function, recursive=False))
