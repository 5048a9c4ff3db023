"""Loaders that tell of their passes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any


class Watched:
    """The batches of ``loader``; ``begin()`` is called before the first one of every pass, ``see(batch)`` before each is handed on.

    What else a loader has, such as samplers and generators that :func:`agflow.finetune` looks for, is the loader's own.
    """

    def __init__(self, loader: Iterable, *, begin: Callable[[], Any] | None = None, see: Callable[[Any], Any] | None = None):
        self._loader, self._begin, self._see = loader, begin, see

    def __iter__(self) -> Iterator[Any]:
        if self._begin is not None:
            self._begin()
        for batch in self._loader:
            if self._see is not None:
                self._see(batch)
            yield batch

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy asks before there is a loader
            raise AttributeError(name)
        return getattr(self._loader, name)
