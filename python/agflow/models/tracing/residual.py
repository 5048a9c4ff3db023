"""Which groups are read into a residual stream."""

from __future__ import annotations

from collections.abc import Iterable

from agflow.models.channel_group import CONSUMER, ChannelGroup
from agflow.models.tracing.chains import chain_behind
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import uses


def read_into_streams(tracer: Tracer, groups: Iterable[ChannelGroup]) -> set[str]:
    """Names of the groups whose reader's result is added to another value, as a branch to a stream.

    Nothing but normalisation and constant factors may lie between.
    """
    weights = {node for node in tracer.parameters_of if node.op == "placeholder"}
    constants = tracer.parameters_of.__contains__
    added: dict[str, list[bool]] = {}
    for use in uses(tracer):
        adds = chain_behind(use.node, use.channels, weights, constants).sum is not None
        for name in use.parameters:
            added.setdefault(name, []).append(adds)
    return {
        group.name
        for group in groups
        if [
            adds
            for member in group.of(CONSUMER)
            if member.module == group.reader
            for adds in added.get(member.name, ())
        ]
        == [True]
    }
