"""Residual branches that can go as a whole: their modules become identities."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from torch import fx

from agflow.models.channel_group import ChannelGroup, Tap
from agflow.models.tracing.groups import residual_additions
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import call_counts, callers


def blocks_of(tracer: Tracer, taken: Collection[str] = ()) -> list[ChannelGroup]:
    """A unit for each module that adds a branch to its one input, in forward order.

    Whether the module is an identity without the branch, so that an activation behind the addition
    changes nothing, is for the proof to find. MACs and parameters are left 0.

    Parameters
    ----------
    taken : names that other groups have
    """
    calls = call_counts(tracer.program)
    inside: dict[str, list[fx.Node]] = defaultdict(list)
    for node in tracer.program.graph.nodes:
        for path in dict.fromkeys(callers(node)):
            inside[path].append(node)
    found = []
    for addition in residual_additions(tracer):
        name = callers(addition)[-1]
        stream = _one_input(inside[name], tracer)
        if not name or name in taken or calls[name] != 1 or stream not in addition.all_input_nodes:
            continue
        branch = next((node for node in addition.all_input_nodes if node is not stream), None)
        whole = _one_output(inside[name])
        if branch is None or whole is None or _shape(whole) != _shape(stream):
            continue
        tap = _emitter(branch, name, inside)
        if tap is not None and calls[tap] == 1:
            found.append(_block(name, Tap(tap, "output", axis=_channel_axis(branch)), branch))
    return found


def _block(name: str, tap: Tap, branch: fx.Node) -> ChannelGroup:
    channels = _shape(branch)[tap.axis]
    return ChannelGroup(
        name, "block", 1, channels, 0, 0, "", taps=(tap,), rounds=False, may_vanish=True
    )


def _one_input(nodes: list[fx.Node], tracer: Tracer) -> fx.Node | None:
    """The one value that nodes read and that is neither theirs nor a weight."""
    own = set(nodes)
    read = {
        source
        for node in nodes
        for source in node.all_input_nodes
        if source not in own and source not in tracer.parameters_of
    }
    return read.pop() if len(read) == 1 else None


def _one_output(nodes: list[fx.Node]) -> fx.Node | None:
    """The one value of nodes that others read."""
    own = set(nodes)
    read = [node for node in nodes if not own.issuperset(node.users)]
    return read[0] if len(read) == 1 else None


def _emitter(value: fx.Node, block: str, inside: dict[str, list[fx.Node]]) -> str | None:
    """The outermost module inside a block whose output a value is."""
    path = callers(value)
    within = path[path.index(block) + 1 :] if block in path else []
    return next((name for name in within if _one_output(inside[name]) is value), None)


def _shape(node: fx.Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _channel_axis(node: fx.Node) -> int:
    """Of maps [B, C, H, W] the second, else the last."""
    return 1 if len(_shape(node)) == 4 else -1
