"""Which of the known words was meant by one that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: object, known: Iterable[str], count: int = 1) -> str:
    """The end of a sentence that names the ``count`` nearest words; "" where none is near.

    Examples
    --------
    >>> from agflow._utils.nearest import did_you_mean
    >>> did_you_mean("rigde", ["ridge", "mean"])
    '; did you mean ridge?'
    >>> did_you_mean("frob", ["ridge", "mean"])
    ''
    """
    close = difflib.get_close_matches(str(word), list(known), count)
    return f"; did you mean {', '.join(close)}?" if close else ""
