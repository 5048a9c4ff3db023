"""How long calls and requests took: the usual one and the worst in a hundred."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from agflow.errors import EmptyError

KEPT = 10_000
"""Durations that are remembered, the latest ones, so that a server of many months needs no more memory."""


class Latency(NamedTuple):
    """Seconds of calls: half of them took at most ``p50``, 99 of 100 at most ``p99``; ``count`` were looked at."""

    count: int
    p50: float
    p99: float

    def __str__(self) -> str:
        return f"p50 {1e3 * self.p50:.2f} ms, p99 {1e3 * self.p99:.2f} ms of {self.count}"


class Durations:
    """Seconds of the latest ``KEPT`` calls. Any thread may add and ask."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=KEPT)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    @property
    def latency(self) -> Latency:
        """Percentiles by nearest rank: each is a duration that occurred.

        Raises
        ------
        EmptyError
            Nothing was measured yet.
        """
        seconds = np.array(self._seconds.copy())
        if not len(seconds):
            raise EmptyError(
                "no call was measured yet; expected at least one: ask for the latency after a call"
            )
        return Latency(
            len(seconds), *map(float, np.percentile(seconds, (50, 99), method="inverted_cdf"))
        )
