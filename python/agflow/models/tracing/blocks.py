"""Residual branches that can go as a whole: their modules become identities."""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from torch import fx

from agflow.models.channel_group import ChannelGroup, Tap
from agflow.models.tracing.call import operator_name
from agflow.models.tracing.groups import residual_additions
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import call_counts, callers, entering, leaving, nodes_in


def blocks_of(tracer: Tracer, taken: Collection[str] = ()) -> list[ChannelGroup]:
    """A unit for each module that adds a branch to its one input, in forward order.

    Nothing behind the addition has weights of its own. Whether the module is an identity without
    the branch, so that an activation there changes nothing, is for the proof to find. MACs and
    parameters are left 0.

    Parameters
    ----------
    taken : names that other groups have
    """
    calls = call_counts(tracer.program)
    inside = nodes_in(tracer.program)
    found = []
    for addition in residual_additions(tracer):
        name = callers(addition)[-1]
        stream = entering(inside[name], tracer)
        if not name or name in taken or calls[name] != 1 or stream not in addition.all_input_nodes:
            continue
        branch = next((node for node in addition.all_input_nodes if node is not stream), None)
        whole = leaving(inside[name])
        if branch is None or whole is None or _shape(whole) != _shape(stream):
            continue
        if _has_weights_behind(addition, set(inside[name]), tracer):
            continue
        tap = _tap(branch, name, inside, tracer)
        if tap is not None and calls[tap.module] == 1:
            found.append(_block(name, tap, branch))
    return found


def _tap(
    branch: fx.Node, block: str, inside: dict[str, list[fx.Node]], tracer: Tracer
) -> Tap | None:
    """The module inside a block whose output a branch is, but for constant factors and its axes."""
    axis = _channel_axis(branch)
    while (module := _emitter(branch, block, inside)) is None:
        source = _scaled(branch, tracer)
        if source is None:
            return None
        if operator_name(branch) == "aten.permute":
            axis = cast("list[int]", branch.args[1])[axis]
        branch = source
    return Tap(module, "output", axis=-1 if axis == len(_shape(branch)) - 1 else axis)


def _scaled(node: fx.Node, tracer: Tracer) -> fx.Node | None:
    """What a node only permutes or multiplies with weights."""
    name = operator_name(node)
    if name not in ("aten.permute", "aten.mul"):
        return None
    sources = [source for source in node.all_input_nodes if source not in tracer.parameters_of]
    same = len(sources) == 1 and len(_shape(sources[0])) == len(_shape(node))
    return sources[0] if same else None


def _block(name: str, tap: Tap, branch: fx.Node) -> ChannelGroup:
    channels = _shape(branch)[_channel_axis(branch)]
    return ChannelGroup(
        name, "block", 1, channels, 0, 0, "", taps=(tap,), rounds=False, may_vanish=True
    )


def _has_weights_behind(addition: fx.Node, block: set[fx.Node], tracer: Tracer) -> bool:
    """Whether something of a block that is computed of an addition reads weights."""
    waiting, seen = [addition], {addition}
    while waiting:
        for user in (user for user in waiting.pop().users if user in block):
            if any(tracer.parameters_of.get(source) for source in user.all_input_nodes):
                return True
            if user not in seen:
                seen.add(user)
                waiting.append(user)
    return False


def _emitter(value: fx.Node, block: str, inside: dict[str, list[fx.Node]]) -> str | None:
    """The outermost module inside a block whose output a value is."""
    path = callers(value)
    within = path[path.index(block) + 1 :] if block in path else []
    return next((name for name in within if leaving(inside[name]) is value), None)


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _channel_axis(node: fx.Node) -> int:
    """Of maps [B, C, H, W] the second, else the last."""
    return 1 if len(_shape(node)) == 4 else -1
