"""The channel groups of any network: traced, proven, and with reasons for what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakKeyDictionary

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.modes import with_gradients, without_checkpointing
from agflow.errors import UnsupportedModelError
from agflow.models.channel_group import ChannelGroup
from agflow.models.costs import Costs
from agflow.models.tracing.attributes import attribute_choices
from agflow.models.tracing.axes import flat
from agflow.models.tracing.blocks import blocks_of
from agflow.models.tracing.costs import costs_of
from agflow.models.tracing.graph import exported, path_of
from agflow.models.tracing.groups import ChannelClass, chosen, classes_of, groups_of
from agflow.models.tracing.head_dims import HeadDims
from agflow.models.tracing.kept import Kept, kept_classes
from agflow.models.tracing.proof import Proof, smaller_sides
from agflow.models.tracing.proving import prove, trainable
from agflow.models.tracing.residual import read_into_streams
from agflow.models.tracing.seen import Sights
from agflow.models.tracing.tied import Ties
from agflow.models.tracing.tracer import Tracer


@dataclass(frozen=True)
class TracedNetwork:
    """What the graph of a network says about what can be pruned.

    Attributes
    ----------
    program : the graph, of :func:`torch.export.export`
    groups : proven groups: of channels in forward order, then residual branches
    kept : channels that are not cut, and why
    costs : multiply-accumulates and parameters as functions of the groups' sizes
    """

    program: torch.export.ExportedProgram
    groups: tuple[ChannelGroup, ...]
    kept: tuple[Kept, ...]
    costs: Costs


_LONG = 8_000_000_000
"""Multiply-accumulates of a pass that is long."""

_known: WeakKeyDictionary[nn.Module, tuple[tuple, TracedNetwork]] = WeakKeyDictionary()


def traced_network(model: nn.Module, input_size: Sequence[int] = (3, 224, 224)) -> TracedNetwork:
    """Trace a network and prove its channel groups; the model stays as it is.

    The result is remembered as long as the model is and the shapes of its parameters stay.

    Parameters
    ----------
    input_size : of one image, [C, H, W]

    Raises
    ------
    UnsupportedModelError
        The model cannot be traced; the message has the reason.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.tracing.network import traced_network
    >>> model = nn.Sequential(
    ...     nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    ... )
    >>> network = traced_network(model, (3, 16, 16))
    >>> [(group.name, group.kind, group.units) for group in network.groups]
    [('0', 'conv', 8)]
    >>> [str(kept) for kept in network.kept]
    ['4: 10 channels kept, the classes']
    """
    key = (
        tuple(input_size),
        tuple((name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()),
    )
    if model in _known and _known[model][0] == key:
        return _known[model][1]
    with without_checkpointing(model):
        network = _trace(model, input_size)
    _known[model] = key, network
    return network


@with_gradients  # of which a proof takes some, wherever it is asked for
def _trace(model: nn.Module, input_size: Sequence[int]) -> TracedNetwork:
    program = exported(model, torch.zeros(2, *input_size).to(first_parameter(model)))
    tracer = Tracer(program)
    proof = Proof(model, _proven_size(model, tracer, input_size))
    classes = classes_of(tracer)
    proven, reasons = _proven(model, tracer, classes, proof)
    if _has_unused_weights(tracer):
        failed = trainable(proof, list(dict.fromkeys(proven.values())))
        reasons |= {held: failed[g.name] for held, g in proven.items() if g.name in failed}
        proven = {held: group for held, group in proven.items() if held not in reasons}
    channels = list(dict.fromkeys(proven[held] for held in classes if held in proven))
    blocks, _ = prove(proof, channels, blocks_of(tracer, {group.name for group in channels}), {})
    costs = costs_of(tracer, {held.leaf: group.name for held, group in proven.items()}, blocks)
    residual = read_into_streams(tracer, channels)
    channels = [replace(group, residual=group.name in residual) for group in channels]
    groups = tuple(_with_costs(group, costs) for group in (*channels, *blocks.values()))
    return TracedNetwork(program, groups, kept_classes(classes, proven, reasons), costs)


def _proven_size(model: nn.Module, tracer: Tracer, input_size: Sequence[int]) -> Sequence[int]:
    """The size of the images that cuts are proven on.

    Where a pass takes long it is a smaller one, if such images take the same path: through the same
    operators in the same modules, to logits of the same shape or maps of the same channels.
    """
    if costs_of(tracer, {}).macs() < _LONG:
        return input_size
    channels, *sides = input_size
    path = path_of(tracer.program)
    # Windows that fill an image fill the half of it, too.
    for smaller in (smaller_sides(sides), [side // 2 for side in sides]):
        images = torch.zeros(2, channels, *smaller).to(first_parameter(model))
        try:
            program = exported(model, images)
        except UnsupportedModelError:  # it wants its own size
            continue
        if path_of(program) == path:
            return channels, *smaller
    return input_size


def _has_unused_weights(tracer: Tracer) -> bool:
    """Whether some weights play no part in evaluation mode."""
    weights = (node for node in tracer.parameters_of if node.op == "placeholder")
    return any(not node.users and node.meta["val"].is_floating_point() for node in weights)


def _proven(
    model: nn.Module, tracer: Tracer, classes: list[ChannelClass], proof: Proof
) -> tuple[dict[ChannelClass, ChannelGroup], dict[ChannelClass, str]]:
    """The classes that are proven groups, and why others are none.

    Where the first factor of an axis fails, the factors behind it have their turn.
    """
    proven: dict[ChannelClass, ChannelGroup] = {}
    seen = Sights(model, tracer)
    sights = {held: sight for held in classes if held.is_whole and (sight := seen.of(held))}
    reasons = {held: seen.reason(held) for held in classes if held.is_whole and held not in sights}
    parted = any(
        factor.parts for dims in tracer.parameters.values() for dim in dims for factor in flat(dim)
    )
    while tried := chosen([held for held in classes if held not in reasons], proven):
        groups = groups_of(sights, tried, {group.name for group in proven.values()})
        choices = {
            group.name: partial(attribute_choices, model, tracer, group, held.leaf)
            for held, group in zip(tried, groups, strict=True)
        }
        found, refused = prove(proof, list(proven.values()), groups, choices, parted)
        for held, group in zip(tried, groups, strict=True):
            if group.name in refused:
                reasons[held] = refused[group.name]
            else:
                proven[held] = found[group.name]
    ties = Ties(tracer, proof, seen, partial(attribute_choices, model, tracer))
    proven = ties.beside(proven, [held for held in classes if held in reasons])
    proven, inside = HeadDims(model, tracer, proof, seen).beside(proven, classes)
    return proven, {held: why for held, why in (reasons | inside).items() if held not in proven}


def _with_costs(group: ChannelGroup, costs: Costs) -> ChannelGroup:
    macs, params = costs.of_unit(group.name, group.parts)
    return replace(group, unit_macs=macs, unit_params=params)
