"""Hooks on modules that are removed again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch.utils.hooks import RemovableHandle

CAPTURE_NOTE = "_output_capturing_hooks_installed"
"""By which a model of transformers knows that its hooks are there, which collect hidden states; it
has to go with them, or they are not registered again."""


@contextmanager
def temporary_hooks(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove the hooks on exit, those before a failed registration included.

    Parameters
    ----------
    handles : what ``register_forward_hook`` and the like return; from a generator, each hook is
        registered and noted in turn
    """
    with ExitStack() as removals:
        for handle in handles:
            removals.callback(handle.remove)
        yield
