"""Progress bars: where they appear, and how."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm import tqdm

_hidden: ContextVar[bool] = ContextVar("_hidden", default=False)


def progress_bar(
    batches: Iterable,
    description: str,
    *,
    total: int | None = None,
    initial: int = 0,
    visible: bool = True,
) -> Any:
    """Iterate over ``batches`` behind a tqdm bar, which vanishes at its end.

    Bars appear on terminals only. ``TQDM_DISABLE=1`` in the environment turns all of them off.
    """
    disable = None if visible and not _hidden.get() else True
    return tqdm(
        batches, desc=description, total=total, initial=initial, disable=disable, leave=False
    )


@contextmanager
def hidden_progress() -> Iterator[None]:
    """Show no bar inside: for steps that an outer bar counts."""
    token = _hidden.set(True)
    try:
        yield
    finally:
        _hidden.reset(token)
