"""Axes of tensors as terms, products of factors and concatenations, and their unification.

A dimension is a list of leaves, the factors of its size in row-major order: the second axis of a
tensor [B, 12 * 64] that is viewed as [B, 12, 64] has two. A leaf is an atom, a concatenation of
dimensions (its ``parts``), or stands for other leaves (``to``). Where an operator needs two axes to
have the same units they are unified: an atom takes the structure of what it meets. What has no
common structure is frozen, with the reason, and a leaf that meets a frozen one is frozen, too.
Sizes of 1 have no leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Reason(NamedTuple):
    """Why a leaf is frozen: the operator that reads it (empty where none does), and how."""

    operator: str
    text: str


class Leaf:
    """A factor of an axis: ``extent`` units that an atom keeps or loses one by one.

    Attributes
    ----------
    extent : number of units, before anything is removed
    reason : why the units must all stay, or None
    normed : whether a norm takes means over the units, which therefore depend on each other
    parts : the dimensions that a concatenation consists of, else None
    to : the leaves that this one stands for, else None
    """

    __slots__ = ("extent", "normed", "parts", "reason", "to")

    def __init__(self, extent: int, reason: Reason | None = None, normed: bool = False):
        self.extent, self.reason, self.normed = extent, reason, normed
        self.parts: list[Dim] | None = None
        self.to: list[Leaf] | None = None

    @property
    def frozen(self) -> bool:
        """Whether the units must all stay."""
        return self.reason is not None

    def __repr__(self) -> str:
        if self.to is not None:
            return "·".join(map(repr, self.to))
        if self.parts is not None:
            return "(" + " + ".join("·".join(map(repr, flat(p))) or "1" for p in self.parts) + ")"
        marks = "!" * self.frozen + "~" * self.normed
        return f"{self.extent}{marks}@{id(self) % 9973}"


Dim = list[Leaf]


def new(size: int, reason: Reason | None = None, normed: bool = False) -> Dim:
    """A dimension of one new atom; of none if the size is 1."""
    return [] if size == 1 else [Leaf(size, reason, normed)]


def concatenation(parts: Sequence[Dim]) -> Dim:
    """A dimension of parts laid one after the other."""
    if len(parts) == 1:
        return list(parts[0])
    leaf = Leaf(sum(size(part) for part in parts))
    leaf.parts = list(parts)
    return [leaf]


def positions(count: int) -> Dim:
    """A dimension whose places differ by what they are, so that none is a unit."""
    return concatenation([[] for _ in range(count)])


def size(dim: Dim) -> int:
    """The size of a dimension."""
    return math.prod(leaf.extent for leaf in dim)


def flat(dim: Dim) -> Dim:
    """The leaves of a dimension: atoms and concatenations, all substitutions followed."""
    found: Dim = []
    for leaf in map(_representative, dim):
        found += [leaf] if leaf.to is None else flat(leaf.to)
    return found


def _representative(leaf: Leaf) -> Leaf:
    """The leaf at the end of a chain of single substitutions, which is shortened."""
    passed = []
    while leaf.to is not None and len(leaf.to) == 1:
        passed.append(leaf)
        leaf = leaf.to[0]
    for other in passed:
        other.to = [leaf]
    return leaf


def atoms(dim: Dim) -> Iterator[Leaf]:
    """All atoms of a dimension, those inside of concatenations included; some may come twice."""
    for leaf in flat(dim):
        if leaf.parts is None:
            yield leaf
        else:
            for part in leaf.parts:
                yield from atoms(part)


def segments(leaf: Leaf) -> list[Dim]:
    """The parts of a concatenation, with those of inner concatenations in their place."""
    found = []
    for part in leaf.parts or []:
        leaves = flat(part)
        if leaves and leaves[0].parts is not None:
            found += [[*inner, *leaves[1:]] for inner in segments(leaves[0])]
        else:
            found.append(leaves)
    return found


def freeze(dim: Dim, reason: Reason) -> None:
    """Let all units of a dimension stay; the first reason counts."""
    for atom in atoms(dim):
        atom.reason = atom.reason or reason


def mark_normed(dim: Dim) -> None:
    """Note that a norm takes means over a dimension."""
    for atom in atoms(dim):
        atom.normed = True


def all_frozen(dim: Dim) -> bool:
    """Whether no unit of a dimension could be removed."""
    return all(atom.frozen for atom in atoms(dim))


def factor(leaf: Leaf, lead: int) -> bool:
    """Turn a leaf into a product of ``lead`` and the rest; False where it has another structure."""
    rest = leaf.extent // lead
    if leaf.parts is None:
        leaf.to = [Leaf(n, leaf.reason, leaf.normed) for n in (lead, rest) if n > 1]
        return True
    chunks = _chunks(leaf, rest)
    if any(len(chunk) > 1 and size(concatenation(chunk)) > rest for chunk in chunks):
        pieces = split([leaf], [rest] * lead)
        if pieces is None:
            return False
        chunks = [[piece] for piece in pieces]
    halves = [factored(concatenation(chunk), rest) for chunk in chunks]
    if None in halves:
        return False
    (_, first), *others = [half for half in halves if half is not None]
    for _, other in others:
        unify(first, other, Reason("", "concatenations of different structure"))
    leaf.to = concatenation([half[0] for half in halves if half is not None]) + first
    return True


def _chunks(leaf: Leaf, rest: int) -> list[list[Dim]]:
    """The segments of a concatenation, those together that only together are multiples of rest."""
    chunks: list[list[Dim]] = [[]]
    for segment in segments(leaf):
        if chunks[-1] and sum(map(size, chunks[-1])) % rest == 0:
            chunks.append([])
        chunks[-1].append(segment)
    return chunks


def factored(dim: Dim, rest: int) -> tuple[Dim, Dim] | None:
    """A dimension as (lead, trail) with a trail of size ``rest``; None where that cannot be."""
    lead, trail = flat(dim), []
    while rest > 1:
        if not lead:
            return None
        leaf = lead.pop()
        if rest % leaf.extent == 0:
            trail.insert(0, leaf)
            rest //= leaf.extent
        elif leaf.extent % rest == 0 and factor(leaf, leaf.extent // rest):
            lead += flat([leaf])
        else:
            return None
    return lead, trail


def split(dim: Dim, sizes: Sequence[int]) -> list[Dim] | None:
    """Consecutive pieces of a dimension, which becomes a concatenation of them.

    None where a piece begins inside of a product's factor.
    """
    leaves = flat(dim)
    if len(sizes) == 1:
        return [leaves]
    first, trail = leaves[0], leaves[1:]
    if trail:
        width = size(trail)
        if any(n % width for n in sizes):
            return None
        pieces = split([first], [n // width for n in sizes])
        return None if pieces is None else [piece + trail for piece in pieces]
    if first.parts is None:
        first.parts = [new(n, first.reason, first.normed) for n in sizes]
        return first.parts
    return _split_concatenation(segments(first), sizes)


def _split_concatenation(rest: list[Dim], sizes: Sequence[int]) -> list[Dim] | None:
    pieces = []
    for wanted in sizes:
        piece: list[Dim] = []
        while wanted:
            part = rest.pop(0)
            if size(part) > wanted:
                halves = split(part, [wanted, size(part) - wanted])
                if halves is None:
                    return None
                part, other = halves
                rest.insert(0, other)
            piece.append(part)
            wanted -= size(part)
        pieces.append(concatenation(piece))
    return pieces


def unify(a: Dim, b: Dim, reason: Reason) -> None:
    """Let two dimensions have the same units; where they cannot, all of them stay, for a reason."""
    a, b = flat(a), flat(b)
    while a and size(a) == size(b):
        x, y = a[0], b[0]
        if x.extent == y.extent:
            if x is not y:
                _unify_leaves(x, y, reason)
            a, b = flat(a[1:]), flat(b[1:])
            continue
        large, small = (x, y) if x.extent > y.extent else (y, x)
        if large.extent % small.extent or not factor(large, small.extent):
            break
        a, b = flat(a), flat(b)
    freeze(a, reason)
    freeze(b, reason)


def _unify_leaves(x: Leaf, y: Leaf, reason: Reason) -> None:
    if x.parts is not None and y.parts is not None:
        widths = _common_widths(segments(x), segments(y))
        xs, ys = split([x], widths), split([y], widths)
        if xs is None or ys is None:
            freeze([x, y], reason)
            return
        for part, other in zip(xs, ys, strict=True):
            unify(part, other, reason)
    elif x.parts is not None:
        x, y = y, x
    if x.parts is None:
        if x.reason is not None:
            freeze([y], x.reason)
        if x.normed:
            mark_normed([y])
    x.to = [y]


def _common_widths(xs: list[Dim], ys: list[Dim]) -> list[int]:
    """Widths of the pieces between the boundaries of either."""
    ends = set()
    for parts in (xs, ys):
        end = 0
        for part in parts:
            end += size(part)
            ends.add(end)
    return [end - start for start, end in zip([0, *sorted(ends)], sorted(ends), strict=False)]


def view(dims: Sequence[Dim], sizes: Sequence[int], reason: Reason) -> list[Dim]:
    """The dimensions after a reshape: factors are split and joined, in order.

    Parameters
    ----------
    dims : of the tensor
    sizes : of the result, the same number of elements
    reason : for what must stay because it has no factors along the new sizes
    """
    if 0 in sizes:
        for dim in dims:
            freeze(dim, reason)
        return [new(n, reason) for n in sizes]
    rest, wanted, found = list(dims), list(sizes), []
    while rest or wanted:
        group, targets = rest[:1], wanted[:1]
        del rest[:1], wanted[:1]
        while (have := math.prod(map(size, group))) != (want := math.prod(targets)):
            if have < want:
                group.append(rest.pop(0))
            else:
                targets.append(wanted.pop(0))
        found += _regrouped([leaf for dim in group for leaf in flat(dim)], targets, reason)
    return found


def _regrouped(leaves: Dim, sizes: list[int], reason: Reason) -> list[Dim]:
    """Leaves dealt out to dimensions of the sizes; all new and frozen where that cannot be."""
    found, rest = [], leaves
    for wanted in sizes:
        dim = []
        while wanted > 1:
            leaf = rest[0]
            if wanted % leaf.extent == 0:
                dim.append(leaf)
                wanted //= leaf.extent
                rest = rest[1:]
            elif leaf.extent % wanted == 0 and factor(leaf, wanted):
                rest = flat(rest)
            else:
                freeze(leaves, reason)
                return [new(n, reason) for n in sizes]
        found.append(dim)
    return found


def coordinates(dim: Dim, leaf: Leaf) -> list[int]:
    """For each place of a dimension the unit of a leaf that it belongs to, -1 where to none."""
    found = [-1]
    for other in flat(dim):
        if other is leaf:
            inner = list(range(leaf.extent))
        elif other.parts is not None:
            inner = [unit for part in other.parts for unit in coordinates(part, leaf)]
        else:
            inner = [-1] * other.extent
        found = [max(a, b) for a in found for b in inner]
    return found


def repeated(dim: Dim) -> set[Leaf]:
    """Atoms that are in two factors of a dimension, where a place belongs to two of their units."""
    seen: set[Leaf] = set()
    twice: set[Leaf] = set()
    for leaf in flat(dim):
        own = set(atoms([leaf]))
        twice |= own & seen
        seen |= own
        for part in leaf.parts or []:
            twice |= repeated(part)
    return twice
