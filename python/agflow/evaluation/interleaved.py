"""Timing contenders against each other so that they share the noise of the machine."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

Name = TypeVar("Name", bound=Hashable)

_LEAST_SECONDS = 0.03
_PAUSE_SECONDS = 0.02


class Ratios(NamedTuple):
    """Of two contenders' times, over the rounds."""

    median: float
    min: float
    max: float


@dataclass(frozen=True)
class Times:
    """Seconds of one call of a contender, one entry a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def over(self, other: Times) -> Ratios:
        """How many times as long as ``other``, each round for itself."""
        ratios = [mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True)]
        return Ratios(statistics.median(ratios), min(ratios), max(ratios))


def interleaved(
    contenders: Mapping[Name, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    least_seconds: float = _LEAST_SECONDS,
    pause_seconds: float = _PAUSE_SECONDS,
) -> dict[Name, Times]:
    """Call every contender in turn, round by round, after one call that warms it up.

    Parameters
    ----------
    clock : seconds; ``time.perf_counter`` for the wall's, ``time.process_time`` for the CPU's
    least_seconds : of one measurement: shorter calls are repeated
    pause_seconds : before each measurement, so that threads of the contender before stop spinning
    """
    calls = {
        name: _calls(contender, clock, least_seconds) for name, contender in contenders.items()
    }
    seconds: dict[Name, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            time.sleep(pause_seconds)
            start = clock()
            for _ in range(calls[name]):
                contender()
            seconds[name].append((clock() - start) / calls[name])
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def _calls(
    contender: Callable[[], object], clock: Callable[[], float], least_seconds: float
) -> int:
    contender()
    start = clock()
    contender()
    return max(1, math.ceil(least_seconds / max(clock() - start, 1e-9)))
