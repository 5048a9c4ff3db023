"""Products of two activations: which axes of each meet, and which are summed over."""

# torch.fx types the arguments of a node as whatever an operator may take.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportIndexIssue=false, reportOptionalIterable=false, reportOptionalSubscript=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from agflow.models.tracing.axes import Dim, Leaf, atoms
from agflow.models.tracing.rules.einsum import labels_of
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import dims_of

aten = torch.ops.aten
ATTENTION = aten.scaled_dot_product_attention.default
_MATRICES: dict[object, slice] = {
    **dict.fromkeys((aten.matmul.default, aten.bmm.default), slice(0, 2)),
    aten.baddbmm.default: slice(1, 3),
}
"""By operator, its arguments that are multiplied."""


@dataclass(frozen=True)
class Multiplied:
    """A product of two tensors, both of which depend on the images.

    Attributes
    ----------
    node : of the operator
    operands : what it multiplies
    labels : by operand, a label for each axis; those of one label meet
    result : labels of the product's axes
    """

    node: fx.Node
    operands: tuple[fx.Node, fx.Node]
    labels: tuple[list[str], list[str]]
    result: list[str]

    @property
    def shared(self) -> list[str]:
        """Labels along each of whose places it multiplies by itself, as in each head."""
        return [label for label in self.result if all(label in of for of in self.labels)]

    @property
    def summed(self) -> list[str]:
        """Labels that it sums over."""
        first, second = self.labels
        return [label for label in first if label in second and label not in self.result]

    def dim(self, tracer: Tracer, operand: int, label: str) -> Dim:
        """The axis of an operand that has a label; none where it has no such axis."""
        dims = dict(zip(self.labels[operand], dims_of(tracer, self.operands[operand]), strict=True))
        return dims.get(label, [])

    def leaves(self, tracer: Tracer, operand: int, labels: list[str]) -> set[Leaf]:
        """The classes along the axes of an operand that have the labels."""
        return {leaf for label in labels for leaf in atoms(self.dim(tracer, operand, label))}


def products_of(tracer: Tracer) -> Iterator[Multiplied]:
    """Every product of two activations, in forward order; of an attention queries and keys."""
    for node in tracer.program.graph.nodes:
        product = _product(tracer, node)
        if product is not None and tracer.parameters_of.keys().isdisjoint(product.operands):
            yield product


def weighted(tracer: Tracer, node: fx.Node) -> Multiplied:
    """The second product of an attention in one operator: its weights, which no node is, and v."""
    q, k, v = node.args[:3]
    ranks = [len(dims_of(tracer, of)) for of in (q, v)]
    (weights, values), result = labels_of("...nm,...md->...nd", ranks)
    return Multiplied(node, (q, v), (weights, values), result)


def _product(tracer: Tracer, node: fx.Node) -> Multiplied | None:
    equation = "...nd,...dm->...nm"
    if node.target in _MATRICES:
        operands = node.args[_MATRICES[node.target]]
    elif node.target is ATTENTION:
        operands, equation = node.args[:2], "...nd,...md->...nm"
    elif node.target is aten.einsum.default:
        equation, operands = node.args
    else:
        return None
    ranks = [len(dims_of(tracer, operand)) for operand in operands]
    if len(ranks) != 2 or (node.target is not aten.einsum.default and min(ranks) < 2):
        return None
    (first, second), result = labels_of(equation, ranks)
    return Multiplied(node, (operands[0], operands[1]), (first, second), result)
