"""Heads of attention: axes in each of whose units activations are multiplied with each other."""

from __future__ import annotations

from typing import cast

import torch
from torch import fx

from agflow.models.tracing.axes import Leaf, atoms
from agflow.models.tracing.rules.einsum import labels_of
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import dims_of

aten = torch.ops.aten
_OPERANDS: dict[object, slice] = {
    **dict.fromkeys((aten.matmul.default, aten.bmm.default), slice(0, 2)),
    aten.baddbmm.default: slice(1, 3),
    aten.scaled_dot_product_attention.default: slice(0, 2),
}
"""By operator, its arguments that are multiplied."""


def head_axes(tracer: Tracer) -> set[Leaf]:
    """The classes of axes that lead both operands of a product of activations.

    Queries [B, heads, N, d] meet keys [B, heads, d, N] in each head by itself. A product with a
    weight, which all places share, is no attention.
    """
    return {leaf for node in tracer.program.graph.nodes for leaf in _heads_of(tracer, node)}


def _heads_of(tracer: Tracer, node: fx.Node) -> set[Leaf]:
    if node.target in _OPERANDS:
        operands = cast("list[fx.Node]", node.args[_OPERANDS[node.target]])
        leading = [slice(0, -2)] * 2
    elif node.target is aten.einsum.default and len(cast(tuple, node.args[1])) == 2:
        operands = cast("list[fx.Node]", node.args[1])
        ranks = [len(dims_of(tracer, operand)) for operand in operands]
        (first, second), result = labels_of(cast(str, node.args[0]), ranks)
        shared = set(first) & set(second) & set(result)
        leading = [[i for i, label in enumerate(of) if label in shared] for of in (first, second)]
    else:
        return set()
    if any(operand in tracer.parameters_of for operand in operands):
        return set()
    found = [
        {leaf for dim in _taken(dims_of(tracer, operand), axes) for leaf in atoms(dim)}
        for operand, axes in zip(operands, leading, strict=True)
    ]
    return found[0] & found[1]


def _taken(dims: list, axes: slice | list[int]) -> list:
    return dims[axes] if isinstance(axes, slice) else [dims[axis] for axis in axes]
