"""Residual branches that can go as a whole: their modules become identities."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx

from agflow.models.channel_group import ChannelGroup, Tap
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
        tap = _emitter(branch, name, inside)
        if tap is not None and calls[tap] == 1:
            found.append(_block(name, Tap(tap, "output", axis=_channel_axis(branch)), branch))
    return found


def _block(name: str, tap: Tap, branch: fx.Node) -> ChannelGroup:
    channels = _shape(branch)[tap.axis]
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
