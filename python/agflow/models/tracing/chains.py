"""The affine chain behind a layer, and the sum that it goes into.

Normalisation by running statistics, LayerScale and constant factors multiply and shift each output
of a layer by constants of its own. Where the end of such a chain is added to another value, as a
residual branch to its stream, the layer is read into that sum.
"""

# torch.fx types the arguments of a node as anything that a graph can hold.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import torch
from torch import fx

aten = torch.ops.aten
PERMUTATIONS = (aten.permute.default, aten.transpose.int)
_UNCHANGED = (aten.dropout.default, aten.dropout_.default, aten.clone.default)
_UNCHANGED += (aten.contiguous.default, aten.alias.default, aten.detach.default)
_SUMS = (aten.add.Tensor, aten.add_.Tensor)
_FACTORS = (aten.mul.Tensor, aten.mul_.Tensor)

IsConstant = Callable[[fx.Node], bool]
"""Whether a value depends on the weights alone, not on the images."""


@dataclass(frozen=True)
class Chain:
    """What lies behind a layer.

    Attributes
    ----------
    nodes : the affine nodes, in order; each alone reads what is before it
    sum : the node that adds the end of the chain to another value of the same shape, or None
    """

    nodes: tuple[fx.Node, ...]
    sum: fx.Node | None


def chain_behind(
    layer: fx.Node, axis: int, weights: Container[fx.Node], is_constant: IsConstant
) -> Chain:
    """Follow the affine chain behind a layer to its end.

    Parameters
    ----------
    axis : of the layer's outputs in what it returns
    weights : the nodes that are parameters and buffers
    """
    nodes: list[fx.Node] = []
    unit, end = unit_of(layer, axis), layer
    while len(end.users) == 1:
        (behind,) = end.users
        if not _is_affine(behind, end, unit, weights, is_constant):
            break
        if behind.target in PERMUTATIONS:
            unit = behind.target(unit, *behind.args[1:])
        nodes.append(behind)
        end = behind
    users = tuple(end.users)
    adds = len(users) == 1 and _adds_to(users[0], end, is_constant)
    return Chain(tuple(nodes), users[0] if adds else None)


def unit_of(layer: fx.Node, axis: int, fill: float = 1.0) -> torch.Tensor:
    """An output of the layer with one row, every entry of which is ``fill``, in float64."""
    shape = [1] * layer.meta["val"].dim()
    shape[axis] = layer.meta["val"].shape[axis]
    return torch.full(shape, fill, dtype=torch.float64)


def _is_affine(
    node: fx.Node,
    x: fx.Node,
    unit: torch.Tensor,
    weights: Container[fx.Node],
    is_constant: IsConstant,
) -> bool:
    """Whether the node multiplies and shifts each output of the layer by constants of its own."""
    if node.target in (*_UNCHANGED, *PERMUTATIONS):
        return True
    if node.target is aten.batch_norm.default:
        of_norm = [a for a in node.args[1:5] if isinstance(a, fx.Node)]
        alone = all(a in weights and len(a.users) == 1 for a in of_norm)
        return node.args[0] is x and unit.dim() > 1 and unit.shape[1] == unit.numel() and alone
    if node.target in _FACTORS:
        factor = node.args[1] if node.args[0] is x else node.args[0]
        if not isinstance(factor, fx.Node):
            return True
        shape = factor.meta["val"].shape
        return is_constant(factor) and torch.broadcast_shapes(shape, unit.shape) == unit.shape
    return False


def _adds_to(node: fx.Node, x: fx.Node, is_constant: IsConstant) -> bool:
    """Whether the node adds ``x`` to another value of the same shape that the images decide."""
    if node.target not in _SUMS or node.kwargs.get("alpha", 1) != 1:
        return False
    other = node.args[1] if node.args[0] is x else node.args[0]
    if not isinstance(other, fx.Node) or other is x or is_constant(other):
        return False
    return other.meta["val"].shape == x.meta["val"].shape
