"""Latency of calls and requests: the median and the 99th percentile."""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

KEPT = 10_000
"""Latest durations that are kept, so that a server of many months needs no more memory."""


class Latency(NamedTuple):
    """Latency percentiles of ``count`` calls, seconds; NaN of no call.

    Examples
    --------
    >>> from agflow.evaluation import Latency
    >>> print(Latency(count=100, p50=0.002, p99=0.01))
    p50 2.00 ms, p99 10.00 ms of 100
    """

    count: int  # pyright: ignore[reportIncompatibleMethodOverride] (hides the count() of tuples)
    p50: float
    p99: float

    def __str__(self) -> str:
        if not self.count:
            return "no call yet"
        return f"p50 {1e3 * self.p50:.2f} ms, p99 {1e3 * self.p99:.2f} ms of {self.count}"


class Durations:
    """Seconds of the latest calls. Any thread may add to them and read their latency.

    Examples
    --------
    >>> from agflow.evaluation.durations import Durations
    >>> durations = Durations()
    >>> durations.add(0.25)
    >>> durations.latency
    Latency(count=1, p50=0.25, p99=0.25)
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=KEPT)

    def add(self, seconds: float) -> None:
        """Record the duration of one call."""
        self._seconds.append(seconds)

    @property
    def latency(self) -> Latency:
        """Percentiles by nearest rank: each is a duration that occurred; NaN of no duration."""
        seconds = np.array(self._seconds.copy())
        if not len(seconds):
            return Latency(0, math.nan, math.nan)
        return Latency(
            len(seconds), *map(float, np.percentile(seconds, (50, 99), method="inverted_cdf"))
        )
