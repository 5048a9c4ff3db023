"""Channels that are not cut, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agflow.models.tracing.groups import ChannelClass
from agflow.models.tracing.normed import TAKES_MEANS


@dataclass(frozen=True)
class Kept:
    """Channels of a module that stay as they are.

    Attributes
    ----------
    name : of the module that emits them
    channels : how many
    reason : why they stay, as a clause: ``"read by aten.sort"``

    Examples
    --------
    >>> from agflow.models.tracing.kept import Kept
    >>> str(Kept("layer4.0.conv2", 512, "read by aten.sort"))
    'layer4.0.conv2: 512 channels kept, read by aten.sort'
    """

    name: str
    channels: int
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.channels} channels kept, {self.reason}"


def kept_classes(
    classes: Collection[ChannelClass],
    cut: Collection[ChannelClass],
    reasons: Mapping[ChannelClass, str],
) -> tuple[Kept, ...]:
    """A line for each class that is not cut, in forward order.

    Parameters
    ----------
    cut : the classes that are
    reasons : why classes failed that seemed possible
    """
    found = []
    for held in classes:
        reason = None if held in cut else reasons.get(held) or _reason(held)
        if reason is not None:
            found.append(Kept(held.first, held.leaf.extent, reason))
    return tuple(found)


def _reason(held: ChannelClass) -> str | None:
    """Why a class is no group; None where another group stands for it."""
    if held.leaf.reason is not None:
        return held.leaf.reason.text
    if held.leaf.normed:
        return TAKES_MEANS
    if held.tied:
        return "a parameter holds them twice"
    if not held.consumed:
        return "no layer reads them"
    return None
