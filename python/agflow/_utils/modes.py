"""Training and evaluation mode of modules, borrowed and given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def preserve_training_mode(*models: nn.Module) -> Iterator[None]:
    """On exit every submodule has the mode again that it had on entry, mixed modes included."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
