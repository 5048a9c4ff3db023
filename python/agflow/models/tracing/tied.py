"""Parts of one axis that must keep equal counts: what ``chunk`` gives, and ``split`` by one width.

Code that deals an axis out in equal parts runs as long as the parts are equally wide, whichever
units each of them keeps. The graph shows where an axis was parted and not by which rule. So where
some part cannot be cut by itself, all are tried together: as one group of as many parts, which the
proof takes or refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from agflow.models.channel_group import Attribute, ChannelGroup, Member, Norm, Run
from agflow.models.tracing.axes import Leaf, flat, segments
from agflow.models.tracing.groups import ChannelClass, chosen, groups_of
from agflow.models.tracing.proof import Proof
from agflow.models.tracing.proving import prove
from agflow.models.tracing.seen import Sight, Sights
from agflow.models.tracing.tracer import Tracer

Groups = dict[ChannelClass, ChannelGroup]


@dataclass(frozen=True)
class Ties:
    """Finds the groups of equal parts of a traced model.

    Attributes
    ----------
    attributes : sets of attributes that a group may need, of it and the leaf that its units are
    """

    tracer: Tracer
    proof: Proof
    seen: Sights
    attributes: Callable[[ChannelGroup, Leaf], Iterable[Sequence[tuple[Attribute, ...]]]]

    def beside(self, proven: Groups, failed: Collection[ChannelClass]) -> Groups:
        """The proven groups by class, those of equal parts among them.

        Parameters
        ----------
        proven : the groups that stand without them; such as are only a part of one give way to it
        failed : the classes that cannot be cut by themselves
        """
        sets = [
            (parts, sight)
            for parts in tied_classes(self.tracer, [*proven, *failed], failed)
            if (sight := self.seen.of_parts(parts))
        ]
        alone = {held: proven[held] for parts, _ in sets for held in parts if held in proven}
        base = {held: group for held, group in proven.items() if held not in alone}
        tied: dict[str, list[ChannelClass]] = {}
        groups, choices = [], {}
        for parts, sight in sets:
            if len(chosen(parts, base)) < len(parts):
                continue
            others = (group for held, group in proven.items() if held not in parts)
            single = groups_of(
                dict.fromkeys(parts, sight), parts, {*tied, *(group.name for group in others)}
            )
            group = tied_group(single, sight)
            groups.append(group)
            tied[group.name] = parts
            choices[group.name] = partial(self.attributes, single[0], parts[0].leaf)
        for name, group in self._proven(base.values(), groups, choices).items():
            base.update(dict.fromkeys(tied[name], group))
        left = {held: group for held, group in alone.items() if held not in base}
        again = self._proven(dict.fromkeys(base.values()), list(left.values()), {})
        return base | {held: again[of.name] for held, of in left.items() if of.name in again}

    def _proven(
        self, base: Iterable[ChannelGroup], groups: Sequence[ChannelGroup], choices: Mapping
    ) -> dict[str, ChannelGroup]:
        if not groups:
            return {}
        return prove(self.proof, list(base), groups, choices, parted=True)[0]


def tied_classes(
    tracer: Tracer, possible: Sequence[ChannelClass], failed: Collection[ChannelClass]
) -> list[list[ChannelClass]]:
    """Classes of equal size that side by side fill an axis which a contraction emits.

    Parameters
    ----------
    possible : the classes that sets are made of
    failed : those of them that cannot be cut by themselves: each set has one or more

    Returns
    -------
    sets that have no class in common, each in the order in which its classes lie
    """
    of_leaf = {held.leaf: held for held in possible}
    found: list[list[ChannelClass]] = []
    for name, dims in tracer.parameters.items():
        emitted = (dim for axis, dim in enumerate(dims) if (name, axis) in tracer.emitted)
        for leaf in (leaf for dim in emitted for leaf in flat(dim)):
            parts = _parts(leaf, of_leaf)
            known = any(held in other for held in parts for other in found)
            if not known and any(held in failed for held in parts):
                found.append(parts)
    return found


def _parts(leaf: Leaf, of_leaf: Mapping[Leaf, ChannelClass]) -> list[ChannelClass]:
    """The classes that a concatenation consists of, if they are distinct, equal and in the map."""
    dims = [flat(dim) for dim in segments(leaf)]
    held = [of_leaf[dim[0]] for dim in dims if len(dim) == 1 and dim[0] in of_leaf]
    equal = len({part.leaf.extent for part in held}) == 1
    return held if equal and len(held) == len(dims) == len(set(held)) > 1 else []


def tied_group(groups: Sequence[ChannelGroup], sight: Sight) -> ChannelGroup:
    """One group of as many parts as there are groups, which have equally many units.

    Parameters
    ----------
    groups : of the parts, in the order in which they lie
    sight : where all of them are seen
    """
    first, parts = groups[0], len(groups)
    runs: dict[tuple[str, int, str], list[Run]] = {}
    norms: dict[tuple, Norm] = {}
    for part, group in enumerate(groups):
        here = partial(replace, unit=part * first.units, count=first.units)
        for member in group.members:
            of_part = map(here, member.runs)
            runs.setdefault((member.name, member.axis, member.role), []).extend(of_part)
        for norm in group.norms:
            before = norms[norm.steps].runs if norm.steps in norms else ()
            norms[norm.steps] = replace(norm, runs=(*before, *map(here, norm.runs)))
    return replace(
        first,
        units=parts * first.units,
        unit_width=sight.unit_width,
        reader=sight.reader,
        taps=sight.taps,
        parts=parts,
        members=tuple(
            Member(name, axis, role, _whole(found, first.units, parts) or tuple(found))
            for (name, axis, role), found in runs.items()
        ),
        norms=tuple(norms.values()),
    )


def _whole(runs: Sequence[Run], units: int, parts: int) -> tuple[Run, ...] | None:
    """All units in one run, where those of the parts lie one after the other."""
    first = runs[0]
    following: Iterator[Run] = (
        replace(first, first=first.first + part * units * first.width, unit=part * units)
        for part in range(parts)
    )
    if first.repeats > 1 or tuple(runs) != tuple(following):
        return None
    return (replace(first, unit=0, count=None),)
