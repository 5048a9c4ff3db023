"""Channels that stay, and the operator that needs them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from agflow.models.tracing.axes import Dim, Reason, flat


@dataclass(frozen=True)
class Barrier:
    """Channels that a parameter emits and that all stay.

    Attributes
    ----------
    operator : that reads them, empty where none is to blame (classes)
    parameter : that emits them: ``"layer4.0.conv2.weight"``
    channels : how many
    reason : in words
    """

    operator: str
    parameter: str
    channels: int
    reason: str

    @property
    def module(self) -> str:
        """Name of the module that the parameter belongs to."""
        return self.parameter.rpartition(".")[0]

    def __str__(self) -> str:
        return f"{self.module or self.parameter}: {self.channels} channels kept, {self.reason}"


def barriers_of(
    parameters: dict[str, list[Dim]], emitted: Iterable[tuple[str, int]]
) -> list[Barrier]:
    """What stays of the channels that parameters emit, in the order of the parameters."""
    order = {name: i for i, name in enumerate(parameters)}
    found = []
    for name, axis in sorted(emitted, key=lambda at: (order[at[0]], at[1])):
        kept = Counter(reason for reason in _reasons(parameters[name][axis]) if reason)
        found += [Barrier(r.operator, name, channels, r.text) for r, channels in kept.items()]
    return found


_FREE = Reason("", "goes with a unit")


def _reasons(dim: Dim) -> list[Reason | None]:
    """Why each place of a dimension stays; None where it need not.

    A place goes with a unit of any of its factors, so that all of them must stay.
    """
    return [None if reason is _FREE else reason for reason in _of_places(dim)]


def _of_places(dim: Dim) -> list[Reason | None]:
    found: list[Reason | None] = [None]
    for leaf in flat(dim):
        if leaf.parts is None:
            inner = [leaf.reason or _FREE] * leaf.extent
        else:
            inner = [reason for part in leaf.parts for reason in _of_places(part)]
        found = [_FREE if _FREE in (a, b) else a or b for a in found for b in inner]
    return found
