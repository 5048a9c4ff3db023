"""Passes over a loader: batches behind a progress bar, and loaders with callbacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from agflow._utils.progress import progress_bar
from agflow.errors import EmptyError

EMPTY = (
    "the loader gave no batch; expected at least one (images, labels) pair: "
    "check the dataset's length and limit"
)


class SizedLoader(Protocol):
    """A loader that knows how many batches it gives, such as a DataLoader or a list."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


class SizedDataset(Protocol):
    """Items by number, and how many there are: a dataset, part of one, a list or a tensor."""

    def __getitem__(self, index: int, /) -> Any: ...

    def __len__(self) -> int: ...


def batches_of(loader: Iterable, description: str, *, total: int | None = None) -> Iterator[Any]:
    """Yield the batches of ``loader`` behind a progress bar.

    Raises
    ------
    EmptyError
        The loader gave no batch.
    """
    empty = True
    for batch in progress_bar(loader, description, total=total):
        empty = False
        yield batch
    if empty:
        raise EmptyError(EMPTY)


class CallbackLoader:
    """A loader that calls ``begin()`` before every pass and ``see(batch)`` before each batch.

    All other attributes, such as the samplers and generators that :func:`agflow.finetune` reads,
    are those of ``loader``.
    """

    def __init__(
        self,
        loader: Iterable,
        *,
        begin: Callable[[], Any] | None = None,
        see: Callable[[Any], Any] | None = None,
    ):
        self._loader: Any = loader
        self._begin, self._see = begin, see

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
