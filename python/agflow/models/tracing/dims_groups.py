"""Channel groups of what is inside of the heads of one attention."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from agflow.models.channel_group import CONSUMER, PRODUCER, THROUGH, ChannelGroup, Member, Run, Tap
from agflow.models.tracing.axes import coordinates, size
from agflow.models.tracing.groups import ChannelClass
from agflow.models.tracing.numbers import Unclear
from agflow.models.tracing.pairs import Inside, Parts
from agflow.models.tracing.seen import UNSEEN, Sights
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import callers

PAIRS, VALUES, BOTH = ".qk", ".v", ".head_dim"
"""What a group has, as its name ends: pairs of query and key, values, or both of equal counts."""


@dataclass(frozen=True)
class Half:
    """The units of pairs or of values.

    Attributes
    ----------
    held : the class of axes that they lie along
    parts : by head
    first : unit of the group
    """

    held: ChannelClass
    parts: Parts
    first: int

    @property
    def count(self) -> int:
        """How many units."""
        return sum(map(len, self.parts))

    def side(self, which: int) -> dict[int, int]:
        """The unit by number: of queries or values (0), of keys or what reads values (1)."""
        units = (unit for part in self.parts for unit in part)
        return {number: self.first + u for u, unit in enumerate(units) for number in unit[which]}


def halves_of(inside: Inside, scope: str) -> list[Half]:
    """The halves that a group has.

    Raises
    ------
    Unclear
        It has values, and they are not known, or halves of unequal width.
    """
    found = [] if scope == VALUES else [Half(inside.keys, inside.pairs, 0)]
    if scope == PAIRS:
        return found
    if isinstance(inside.taken, str) or inside.values is None:
        raise Unclear(str(inside.taken))
    if found and len(inside.taken[0]) != len(inside.pairs[0]):
        raise Unclear("values of another width")
    return [*found, Half(inside.values, inside.taken, sum(half.count for half in found))]


def group_of(
    tracer: Tracer, seen: Sights, inside: Inside, scope: str, taken: Iterable[str]
) -> ChannelGroup:
    """The group of one attention, without attributes; MACs and parameters are left 0.

    Parameters
    ----------
    scope : which halves it has
    taken : names that other groups have

    Raises
    ------
    Unclear
        It is no group of its own, or its units are seen nowhere.
    """
    halves = halves_of(inside, scope)
    units = sum(half.count for half in halves)
    members = [member for half in halves for member in _members(tracer, inside, half, units)]
    _check_all(tracer, halves, members, units)
    taps = [_taps(seen, inside, half) for half in halves]
    if len({rows for _, rows, _ in taps}) > 1:
        raise Unclear(UNSEEN)
    return ChannelGroup(
        _name(inside, scope, set(taken)),
        "head_dim",
        units,
        1,
        0,
        0,
        taps[0][2] if scope == VALUES else "",
        parts=sum(len(half.parts) for half in halves),
        taps=tuple(tap for of_half, _, _ in taps for tap in of_half),
        members=tuple(members),
    )


def pairs_alone(tracer: Tracer, inside: Inside) -> ChannelGroup:
    """The pairs of an attention as a group that says only where they lie."""
    (half,) = halves_of(inside, PAIRS)
    members = tuple(_members(tracer, inside, half, half.count))
    return ChannelGroup("pairs", "head_dim", half.count, 1, 0, 0, "", members=members)


def scaled(group: ChannelGroup, inside: Inside) -> tuple[Member, ...]:
    """The members of queries into which a factor of all of them can go."""
    (pairs,) = halves_of(inside, PAIRS)
    queries = pairs.side(0).keys()
    rows = {number: {number} for number in queries} | inside.numbers.met

    def is_of_queries(member: Member) -> bool:
        places = [
            inside.numbers.of_place(member.name, member.axis, run.first + repeat * run.period)
            for run in member.runs
            for repeat in range(run.repeats)
        ]
        return all(rows.get(place, set()) & queries for place in places)

    return tuple(
        member
        for member in group.members
        if member.name in inside.divided and is_of_queries(member)
    )


def places_held(
    tracer: Tracer, members: Iterable[Member], units: int
) -> dict[tuple[str, int], torch.Tensor]:
    """By parameter and axis, which of its places members of a group of so many units hold."""
    held: dict[tuple[str, int], torch.Tensor] = {}
    for member in members:
        at = member.name, member.axis
        own = member.unit_of(size(tracer.parameters[member.name][member.axis]), units) >= 0
        held[at] = own | held[at] if at in held else own
    return held


def _members(tracer: Tracer, inside: Inside, half: Half, units: int) -> Iterator[Member]:
    """The members of a half of a group of so many units.

    Those of queries, then of keys; or of values, then of what reads them.
    """
    both = half.side(0), half.side(1)
    for weights, role in zip(both, (PRODUCER, CONSUMER), strict=True):
        beside = _beside(inside, weights, {*both[0], *both[1]})
        yield from _laid(tracer, inside, weights, role, units)
        yield from _laid(tracer, inside, beside, THROUGH, units)


def _beside(inside: Inside, weights: Mapping[int, int], own: set[int]) -> dict[int, int]:
    """The units of other parameters' places that meet channels, such as those of biases."""
    found = {}
    for number, rows in inside.numbers.met.items():
        units = {weights.get(row) for row in rows}
        if units == {None} or number in own:
            continue
        if len(units) > 1:
            name = (inside.numbers.places[number] or ("", 0, 0))[0]
            raise Unclear(f"held by {name} for all heads")
        found[number] = units.pop()
    return found


def _laid(
    tracer: Tracer, inside: Inside, units: Mapping[int, int], role: str, count: int
) -> Iterator[Member]:
    """Members of a role: the places of units, by parameter and axis."""
    axes: dict[tuple[str, int], torch.Tensor] = {}
    for number, unit in units.items():
        name, axis, place = inside.numbers.places[number] or ("", 0, 0)
        if (name, axis) not in axes:
            axes[name, axis] = torch.full((size(tracer.parameters[name][axis]),), -1)
        axes[name, axis][place] = unit
    for (name, axis), units_S in axes.items():
        yield Member(name, axis, role, runs_along(units_S.tolist(), count))


def runs_along(units_S: Sequence[int], count: int) -> tuple[Run, ...]:
    """The index map of units, whose places along an axis are given; -1 where there is none.

    Examples
    --------
    >>> from agflow.models.tracing.dims_groups import runs_along
    >>> runs_along([-1, 0, 1], 2), runs_along([1, -1, 0], 2)[0]
    ((Run(first=1, width=1, repeats=1, period=0, unit=0, count=None),), \
Run(first=0, width=1, repeats=1, period=0, unit=1, count=1))
    """
    found: list[Run] = []
    for place, unit in enumerate(units_S):
        last = found[-1] if found else None
        if unit < 0:
            continue
        if last and last.count and place == last.first + last.count:
            if unit == last.unit + last.count:
                found[-1] = Run(last.first, unit=last.unit, count=last.count + 1)
                continue
        found.append(Run(place, unit=unit, count=1))
    if len(found) == 1 and found[0].unit == 0 and found[0].count == count:
        return (Run(found[0].first),)
    return tuple(found)


def _check_all(
    tracer: Tracer, halves: Sequence[Half], members: Sequence[Member], units: int
) -> None:
    """Every place of the classes must be one of a member."""
    held = places_held(tracer, members, units)
    for half in halves:
        for member in half.held.members:
            dim = tracer.parameters[member.name][member.axis]
            holds = torch.tensor(coordinates(dim, half.held.leaf)) >= 0
            own = held.get((member.name, member.axis), torch.zeros_like(holds))
            if bool((holds & ~own).any()):
                raise Unclear(f"held by {member.name} beside")


def _taps(seen: Sights, inside: Inside, half: Half) -> tuple[tuple[Tap, ...], int, str]:
    """Where a half is seen, how many rows of it an image has there, and the layer that reads it.

    Pairs are seen as queries, or as keys where several heads of queries share these; values where
    they are read, or where they are made.
    """
    units = [unit for part in half.parts for unit in part]
    are_pairs = half.parts is inside.pairs
    sides = [("output", 0), ("output", 1)] if are_pairs else [("input", 1), ("output", 0)]
    for side, which in sides:
        numbers = [next(iter(unit[which])) for unit in units if len(unit[which]) == 1]
        if len(numbers) < len(units):
            continue
        if side == "input":
            places = [inside.numbers.places[number] for number in numbers]
            names = {place[0] for place in places if place}
            channels = [place[2] for place in places if place]
            module = names.pop().rpartition(".")[0] if len(names) == 1 else ""
        else:
            module, channels = _made(inside, numbers)
        taps, rows = seen.beside(module, side, channels) if module else ((), 0)
        if taps:
            return taps, rows, module if side == "input" else ""
    raise Unclear(UNSEEN)


def _made(inside: Inside, numbers: Sequence[int]) -> tuple[str, list[int]]:
    """The layer that gives channels, and which of its outputs they are; "" where there is none."""
    for node, numbers_C in inside.numbers.outputs.items():
        channel = {number: c for c, number in enumerate(numbers_C.tolist())}
        if all(number in channel for number in numbers):
            return callers(node)[-1], [channel[number] for number in numbers]
    return "", []


def _name(inside: Inside, scope: str, taken: set[str]) -> str:
    """The module around the layers of queries and keys, and what the group has."""
    first = [next(iter(inside.pairs[0][0][which])) for which in (0, 1)]
    modules = [(inside.numbers.places[n] or ("", 0, 0))[0].split(".")[:-1] for n in first]
    around = os.path.commonprefix(modules)
    around = around[:-1] if around in modules else around
    name = ".".join([*around, scope[1:]])
    count = 1
    while name in taken:
        count += 1
        name = ".".join([*around, f"{scope[1:]}.{count}"])
    return name
