"""What loaders and data sets have, for type checkers; a loader with a callback; workers' errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from agflow.errors import AgflowError


class SizedLoader(Protocol):
    """A loader that knows how many batches it gives, such as a DataLoader or a list."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class SizedDataset(Protocol):
    """Items by number, and how many there are: a dataset, part of one, a list or a tensor."""

    def __getitem__(self, index: int, /) -> Any: ...

    def __len__(self) -> int: ...


def as_raised(loader: Iterable) -> Iterator[Any]:
    """The batches of a loader; an error of a worker process is raised as it was there.

    torch makes the worker's whole traceback the message of the error. The pass begins at the call,
    not at the first batch: a DataLoader draws its seed then.
    """
    return _as_raised(iter(loader))


def _as_raised(batches: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except AgflowError as error:
        last = str(error).rstrip().splitlines()[-1]
        _, found, sentence = last.partition(f"{type(error).__name__}: ")
        if found and str(error).startswith("Caught "):
            raise type(error)(sentence) from error
        raise


class CallbackLoader:
    """A loader that calls ``begin()`` before every pass.

    All other attributes, such as the samplers and generators that :func:`agflow.finetune` reads,
    are those of ``loader``.
    """

    def __init__(self, loader: Iterable, *, begin: Callable[[], Any]):
        self._loader: Any = loader
        self._begin = begin

    def __iter__(self) -> Iterator[Any]:
        self._begin()
        yield from self._loader

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy asks before there is a loader
            raise AttributeError(name)
        return getattr(self._loader, name)
