"""Which groups are read into a residual stream."""

from __future__ import annotations

import torch
from torch import fx

from agflow.models.channel_group import CONSUMER, ChannelGroup
from agflow.models.tracing.tracer import Tracer

aten = torch.ops.aten
_SUMS = (aten.add.Tensor, aten.add_.Tensor)
_KEPT = (
    *(aten.batch_norm.default, aten.mul.Tensor, aten.mul_.Tensor, aten.dropout.default),
    *(aten.dropout_.default, aten.clone.default, aten.contiguous.default, aten.permute.default),
)
"""What may lie between a layer and the sum: normalisation, LayerScale, and nothing at all."""


def is_residual(tracer: Tracer, group: ChannelGroup) -> bool:
    """Whether the group's reader is added to a value of its shape, as a branch to its stream.

    Nothing but normalisation and factors may lie between.
    """
    weights = {member.name for member in group.of(CONSUMER) if member.module == group.reader}
    readers = [
        user
        for node, names in tracer.parameters_of.items()
        if node.op == "placeholder" and weights.intersection(names)
        for user in node.users
    ]
    return len(readers) == 1 and _is_added(readers[0])


def _is_added(node: fx.Node) -> bool:
    while len(node.users) == 1:
        (behind,) = node.users
        if behind.target in _SUMS:
            summands = [x for x in behind.args[:2] if isinstance(x, fx.Node)]
            return len(summands) == 2 and all(
                x.meta["val"].shape == behind.meta["val"].shape and x.op != "placeholder"
                for x in summands
            )
        if behind.target not in _KEPT:
            return False
        node = behind
    return False
