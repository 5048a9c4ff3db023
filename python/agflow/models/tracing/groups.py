"""Channel groups of a traced graph: classes of axes that begin and end at parameters."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import fx

from agflow.models.channel_group import CONSUMER, PRODUCER, THROUGH, ChannelGroup, Member, Norm
from agflow.models.tracing.attending import head_axes
from agflow.models.tracing.axes import Dim, Leaf, atoms, flat, size
from agflow.models.tracing.normed import Norms
from agflow.models.tracing.runs import runs_of
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import Use, callers, dims_of, uses

if TYPE_CHECKING:
    from agflow.models.tracing.seen import Sight

_ADDITIONS = {torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor}


@dataclass(eq=False)
class ChannelClass:
    """A class of axes that keep the same units: the leaf that they share, and who holds it.

    Attributes
    ----------
    produced, consumed : the contractions that emit and read it, in forward order
    members : parameters and buffers along whose axes it lies
    additions : of a residual branch to its own input, along whose axes it lies
    attends : whether each unit is a head: an attention multiplies activations in each by itself
    conflicts : classes that lie along the same positions of a parameter's axis and are nearer to
        its front: only one of them can be cut
    tied : whether a parameter holds it in a way that no index map says
    norms : where means over the units are taken
    """

    leaf: Leaf
    produced: list[Use] = field(default_factory=list)
    consumed: list[Use] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)
    additions: list[fx.Node] = field(default_factory=list)
    attends: bool = False
    conflicts: list[ChannelClass] = field(default_factory=list)
    tied: bool = False
    norms: tuple[Norm, ...] = ()

    @property
    def first(self) -> str:
        """Name of the module that emits it first, or of the model's own parameter that does."""
        parameter = self.produced[0].parameters[0]
        return parameter.rpartition(".")[0] or parameter

    @property
    def is_whole(self) -> bool:
        """Whether it begins and ends at parameters, and nothing else holds on to it."""
        free = not (self.leaf.frozen or self.leaf.normed or self.tied)
        return free and self.leaf.extent > 1 and bool(self.produced and self.consumed)


def classes_of(tracer: Tracer) -> list[ChannelClass]:
    """Every class of axes that a contraction emits, in forward order."""
    found: dict[Leaf, ChannelClass] = {}
    contractions = uses(tracer)
    for use in contractions:
        passed = use.passed(tracer)
        for leaf in dict.fromkeys(atoms(use.read(tracer))):
            if leaf in found and leaf not in passed:
                found[leaf].consumed.append(use)
        for leaf in use.emitted(tracer):
            if leaf not in passed:
                found.setdefault(leaf, ChannelClass(leaf)).produced.append(use)
    for name, dims in tracer.parameters.items():
        own = [use for use in contractions if name in use.parameters]
        for axis, dim in enumerate(dims):
            _hold(found, tracer, own, name, axis, dim)
    for addition in residual_additions(tracer):
        for leaf in dict.fromkeys(leaf for dim in dims_of(tracer, addition) for leaf in atoms(dim)):
            if leaf in found:
                found[leaf].additions.append(addition)
    for leaf in head_axes(tracer) & found.keys():
        found[leaf].attends = True
    for leaf, norms in Norms(tracer).by_class().items():
        if leaf in found:
            found[leaf].norms = norms
    return list(found.values())


def _hold(
    found: dict[Leaf, ChannelClass],
    tracer: Tracer,
    own: list[Use],
    name: str,
    axis: int,
    dim: Dim,
) -> None:
    """Note the classes that lie along an axis of a parameter."""
    for leaf in dict.fromkeys(atoms(dim)):
        if leaf not in found:
            continue
        held, runs = found[leaf], runs_of(dim, leaf)
        roles = {_role(tracer, use, axis, leaf) for use in own} or {THROUGH}
        member = Member(name, axis, roles.pop(), runs)
        covered = sum(run.width * run.repeats for run in runs) * leaf.extent
        held.tied |= bool(roles) or covered != int(
            (member.unit_of(size(dim), leaf.extent) >= 0).sum()
        )
        held.members.append(member)
    for product in _products(dim):
        inside = [[found[leaf] for leaf in atoms([factor]) if leaf in found] for factor in product]
        for k, behind in enumerate(inside):
            for held in behind:
                held.conflicts += [other for front in inside[:k] for other in front]


def _role(tracer: Tracer, use: Use, axis: int, leaf: Leaf) -> str:
    """What a contraction does with the class along this axis of its weight's parameter."""
    if leaf in use.passed(tracer):
        return THROUGH
    dims = dims_of(tracer, use.weight)
    emits, reads = leaf in atoms(dims[use.emits]), leaf in atoms(dims[use.reads])
    if emits and reads:
        emits, reads = axis == use.emits, axis == use.reads
    return PRODUCER if emits else CONSUMER if reads else THROUGH


def _products(dim: Dim) -> Iterator[list[Leaf]]:
    """The products of several factors in an axis, those inside concatenations included."""
    factors = flat(dim)
    if len(factors) > 1:
        yield factors
    for factor in factors:
        for part in factor.parts or ():
            yield from _products(part)


def residual_additions(tracer: Tracer) -> Iterator[fx.Node]:
    """Additions of a value to something that is computed of it; those of norms are none."""
    order = {node: i for i, node in enumerate(tracer.program.graph.nodes)}
    for node in order:
        if node.target in _ADDITIONS and len(node.all_input_nodes) == 2:
            early, late = sorted(node.all_input_nodes, key=order.__getitem__)
            if _depends(late, early, order) and not tracer.is_norm(node):
                yield node


def _depends(node: fx.Node, on: fx.Node, order: dict[fx.Node, int]) -> bool:
    """Whether ``node`` is computed of ``on``."""
    waiting, seen = [node], {node}
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source is on:
                return True
            if source not in seen and order[source] > order[on]:
                seen.add(source)
                waiting.append(source)
    return False


def chosen(classes: Iterable[ChannelClass], taken: Collection[ChannelClass]) -> list[ChannelClass]:
    """The classes that can be cut together with those that are ``taken``, in the same order.

    Of the factors of one axis the first is chosen: the groups of a convolution before the channels
    in them, heads before their channels.
    """
    whole = [held for held in classes if held.is_whole and held not in taken]
    found: list[ChannelClass] = []
    for held in sorted(whole, key=lambda held: len(held.conflicts)):
        if not any(
            other in held.conflicts or held in other.conflicts for other in (*found, *taken)
        ):
            found.append(held)
    return [held for held in whole if held in found]


def groups_of(
    sights: Mapping[ChannelClass, Sight],
    classes: Iterable[ChannelClass],
    taken: Collection[str] = (),
) -> list[ChannelGroup]:
    """A channel group for each class, in the same order; MACs and parameters are left 0.

    Parameters
    ----------
    sights : where each class is seen
    taken : names that other groups have
    """
    classes = list(classes)
    return [
        ChannelGroup(
            name,
            _kind(held),
            held.leaf.extent,
            sights[held].unit_width,
            0,
            0,
            sights[held].reader,
            taps=sights[held].taps,
            rounds=not held.attends,
            members=tuple(held.members),
            norms=held.norms,
        )
        for held, name in zip(classes, _names(classes, taken), strict=True)
    ]


def _kind(held: ChannelClass) -> str:
    if held.attends:
        return "heads"
    if held.additions:
        return "stage"
    maps = any(use.is_convolution for use in (*held.produced, *held.consumed))
    return "conv" if maps else "mlp"


def _names(classes: list[ChannelClass], taken: Collection[str]) -> list[str]:
    """Names of groups: of what emits them first, a stream's of what its additions share."""
    shared = [
        os.path.commonprefix([callers(node)[-1].split(".") for node in held.additions])
        for held in classes
    ]
    # One addition alone shares the whole name of its block, which is the block's own.
    paths = [
        ".".join(path[:-1] if len(held.additions) == 1 else path)
        for path, held in zip(shared, classes, strict=True)
    ]
    often, emitted = Counter(paths), Counter(held.first for held in classes)
    names: list[str] = []
    for path, held in zip(paths, classes, strict=True):
        name = path if path and often[path] == 1 and not emitted[path] else held.first
        others, count = {*taken, *names}, 1
        while name in others:  # a layer whose outputs are several groups
            count += 1
            name = f"{held.first}.{count}"
        names.append(name)
    return names
