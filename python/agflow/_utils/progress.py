"""Progress of long work: a bar with the time left on a terminal, lines of text in a log."""

from __future__ import annotations

import operator
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_SECONDS = 30.0  # between two lines of the same work; shorter work writes none

_hidden: ContextVar[bool] = ContextVar("_hidden", default=False)
_log: ContextVar[Callable[[str], None] | None] = ContextVar("_log", default=None)


class ProgressMeter:
    """How far a piece of work has come, as a context.

    On a terminal it is a tqdm bar, which vanishes at the end. Elsewhere it writes lines where
    :func:`logged_progress` says to, and nothing otherwise. ``TQDM_DISABLE=1`` in the environment
    turns both off.

    Parameters
    ----------
    total : units of work, batches for instance; None where it is not known
    visible : False shows nothing
    """

    def __init__(self, description: str, *, total: int | None = None, visible: bool = True):
        visible = visible and not _hidden.get() and os.environ.get("TQDM_DISABLE", "") in ("", "0")
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar = _bar(description, total) if visible and terminal else None
        self._write = _log.get() if visible and not terminal else None
        self._description, self._total = description, total
        self._skipped = self._done = 0
        self._began = self._written = time.monotonic()

    def __enter__(self) -> ProgressMeter:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def skip(self, units: int) -> None:
        """Count ``units`` as done before the work began, by an earlier process."""
        self._skipped = self._done = units
        if self._bar is not None:
            self._bar.initial = self._bar.n = units

    def advance(self, units: int = 1, **figures: str) -> None:
        """Count ``units`` as done; ``figures`` stand behind the bar."""
        self._done += units
        if self._bar is not None:
            if figures:
                self._bar.set_postfix(figures, refresh=False)
            self._bar.update(units)
        elif self._write and time.monotonic() - self._written >= LINE_SECONDS:
            self._line(f"{self._done}/{self._total}" if self._total else f"{self._done}")

    def report(self, milestone: str) -> None:
        """Write a line about a part that has ended; a bar needs none."""
        if self._write:
            self._line(milestone)

    def _line(self, text: str) -> None:
        assert self._write is not None
        self._written = time.monotonic()
        left, done = "", self._done - self._skipped
        if self._total and done and self._done < self._total:
            seconds = (self._written - self._began) / done * (self._total - self._done)
            left = f", {in_words(seconds)} left"
        self._write(f"{self._description} {text}{left}")


def _bar(description: str, total: int | None) -> tqdm:
    from tqdm import tqdm  # a log needs none, nor does a command that shows nothing

    columns = shutil.get_terminal_size().columns  # tqdm shows nothing where the size is unknown
    return tqdm(desc=description, total=total, disable=False, leave=False, ncols=columns)


def in_words(seconds: float) -> str:
    """A duration as people say it: 41 s, 3 min 5 s, 1 h 12 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def progress_bar(
    batches: Iterable, description: str, *, total: int | None = None, visible: bool = True
) -> Iterator[Any]:
    """Iterate over ``batches`` and show how far that has come (see :class:`ProgressMeter`)."""
    total = total or operator.length_hint(batches) or None
    with ProgressMeter(description, total=total, visible=visible) as progress:
        for batch in batches:
            yield batch
            progress.advance()


@contextmanager
def hidden_progress() -> Iterator[None]:
    """Show no progress inside: for steps that an outer one counts."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)


@contextmanager
def logged_progress(write: Callable[[str], None]) -> Iterator[None]:
    """Write lines of progress inside where no bar can be shown.

    Commands do this, so that a log of long work is never silent; calls in a program or a notebook
    stay silent.
    """
    token = _log.set(write)
    try:
        yield
    finally:
        _log.reset(token)
