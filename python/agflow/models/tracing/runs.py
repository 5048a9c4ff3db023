"""Where the units of a channel class lie along an axis: runs read off the axis's factors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from agflow.models.channel_group import Run
from agflow.models.tracing.axes import Dim, Leaf, flat, size


def runs_of(dim: Dim, leaf: Leaf) -> tuple[Run, ...]:
    """The index map of ``leaf`` along an axis; empty where the axis does not hold it.

    In a product the factors behind the leaf make each unit wide, those before it repeat the units;
    in a concatenation a part starts where those before it end.
    """
    return tuple(_runs(dim, leaf))


def _runs(dim: Dim, leaf: Leaf) -> Iterator[Run]:
    factors = flat(dim)
    for k, factor in enumerate(factors):
        before = prod(other.extent for other in factors[:k])
        behind = prod(other.extent for other in factors[k + 1 :])
        for run in _inside(factor, leaf):
            yield from _repeated(
                Run(run.first * behind, run.width * behind, run.repeats, run.period * behind),
                before,
                factor.extent * behind,
            )


def _inside(factor: Leaf, leaf: Leaf) -> Iterator[Run]:
    """The runs of ``leaf`` inside one factor."""
    if factor is leaf:
        yield Run(0)
    first = 0
    for part in factor.parts or ():
        for run in _runs(part, leaf):
            yield replace(run, first=first + run.first)
        first += size(part)


def _repeated(run: Run, times: int, period: int) -> Iterator[Run]:
    """A run as the factors before it repeat it."""
    if times == 1 or run.repeats == 1:
        repeats, period = (run.repeats, run.period) if times == 1 else (times, period)
        yield replace(run, repeats=repeats, period=period)
        return
    for time in range(times):
        yield replace(run, first=run.first + time * period)
