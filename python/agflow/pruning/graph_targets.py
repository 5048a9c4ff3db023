"""What a convolution or linear layer of an exported network is fitted to.

Behind the layer lies an affine chain: normalisation by running statistics, LayerScale, a constant
factor. Where the chain's end is added to something else, as a residual branch to its stream, the
sum is what the fit brings back to that of the dense network, whatever the other summand is (a
stream, a padded or projected shortcut) and whichever of the two runs first. Elsewhere it is the
chain's end itself.

Shape suffixes: O outputs of the layer.
"""

# torch.fx types the arguments of a node as anything that a graph can hold.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import fx

from agflow.pruning.graph_run import GraphRun

aten = torch.ops.aten
_LAYERS = (aten.conv2d.default, aten.conv2d.padding, aten.linear.default)
_UNCHANGED = (aten.dropout.default, aten.dropout_.default, aten.clone.default)
_UNCHANGED += (aten.contiguous.default, aten.alias.default, aten.detach.default)
_SUMS = (aten.add.Tensor, aten.add_.Tensor)
_FACTORS = (aten.mul.Tensor, aten.mul_.Tensor)
_PERMUTATIONS = (aten.permute.default, aten.transpose.int)


@dataclass(frozen=True)
class FitTarget:
    """A layer and the node behind it whose value its fit brings back.

    Attributes
    ----------
    layer : the node of the convolution or linear layer
    chain : the affine nodes behind it, in order
    norm : that of them that normalises by running statistics, right behind the layer; or None
    end : the last node of the chain, or the sum that it goes into
    """

    layer: fx.Node
    chain: tuple[fx.Node, ...]
    norm: fx.Node | None
    end: fx.Node

    @property
    def adds(self) -> bool:
        """Whether the chain ends in a sum."""
        return self.end is not self.layer and self.end not in self.chain

    @property
    def bias(self) -> fx.Node | None:
        """The layer's bias."""
        args = self.layer.args
        given = args[2] if len(args) > 2 else self.layer.kwargs.get("bias")
        return given if isinstance(given, fx.Node) else None

    @property
    def shifts(self) -> bool:
        """Whether the layer has a bias, or a normalisation by running statistics behind it."""
        return self.norm is not None or self.bias is not None

    @property
    def branch(self) -> fx.Node:
        """The end of the chain."""
        return self.chain[-1] if self.chain else self.layer


def layer_of(run: GraphRun, weight: str) -> fx.Node | None:
    """The one dense convolution or linear layer that has this weight; None where there is none.

    Grouped convolutions and weights that are read twice, or by something else, are none.
    """
    readers = [
        node for node in run.nodes if any(run.names.get(a) == weight for a in node.args[1:2])
    ]
    used = [user for node, name in run.names.items() if name == weight for user in node.users]
    if len(readers) != 1 or len(used) != 1 or readers[0].target not in _LAYERS:
        return None
    (layer,) = readers
    groups = layer.args[6] if len(layer.args) > 6 else layer.kwargs.get("groups", 1)
    rows = layer.args[0].meta["val"].shape[0]
    by_image = rows % run.batch_size == 0 if is_linear(layer) else rows == run.batch_size
    return layer if groups == 1 and by_image else None


def is_linear(layer: fx.Node) -> bool:
    """Whether the layer is a linear one, not a convolution."""
    return layer.target is aten.linear.default


def target_of(run: GraphRun, layer: fx.Node) -> FitTarget:
    """Follow the affine chain behind a layer to its end."""
    chain: list[fx.Node] = []
    unit, end = _unit(layer), layer
    while len(end.users) == 1:
        (behind,) = end.users
        if not _is_affine(run, behind, end, unit):
            break
        if behind.target in _PERMUTATIONS:
            unit = behind.target(unit, *behind.args[1:])
        chain.append(behind)
        end = behind
    norm = chain[0] if chain and chain[0].target is aten.batch_norm.default else None
    users = tuple(end.users)
    if len(users) == 1 and _adds_to(run, users[0], end):
        end = users[0]
    return FitTarget(layer, tuple(chain), norm, end)


def _unit(layer: fx.Node, fill: float = 1.0) -> torch.Tensor:
    """An output of the layer with one row, every entry of which is ``fill``."""
    shape = [1] * layer.meta["val"].dim()
    axis = channel_axis(layer)
    shape[axis] = layer.meta["val"].shape[axis]
    return torch.full(shape, fill, dtype=torch.float64)


def channel_axis(layer: fx.Node) -> int:
    """The axis of the outputs in what the layer returns."""
    return -1 if is_linear(layer) else 1


def _is_affine(run: GraphRun, node: fx.Node, x: fx.Node, unit: torch.Tensor) -> bool:
    """Whether the node multiplies and shifts each output of the layer by constants of its own."""
    if node.target in (*_UNCHANGED, *_PERMUTATIONS):
        return True
    if node.target is aten.batch_norm.default:
        of_norm = [a for a in node.args[1:5] if isinstance(a, fx.Node)]
        alone = all(a in run.names and len(a.users) == 1 for a in of_norm)
        return node.args[0] is x and unit.dim() > 1 and unit.shape[1] == unit.numel() and alone
    if node.target in _FACTORS:
        factor = node.args[1] if node.args[0] is x else node.args[0]
        if not isinstance(factor, fx.Node):
            return True
        shape = factor.meta["val"].shape
        return run.is_constant(factor) and torch.broadcast_shapes(shape, unit.shape) == unit.shape
    return False


def _adds_to(run: GraphRun, node: fx.Node, x: fx.Node) -> bool:
    """Whether the node adds ``x`` to another value of the same shape that the images decide."""
    if node.target not in _SUMS or node.kwargs.get("alpha", 1) != 1:
        return False
    other = node.args[1] if node.args[0] is x else node.args[0]
    if not isinstance(other, fx.Node) or other is x or run.is_constant(other):
        return False
    return other.meta["val"].shape == x.meta["val"].shape


def factor_of(
    run: GraphRun, target: FitTarget, weights: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """The factor [O], float64, by which the chain multiplies each output of the layer."""
    device = weights[run.names[target.layer.args[1]]].device

    def at(fill: float) -> torch.Tensor:
        known = {target.layer: _unit(target.layer, fill).to(device)}
        return run.value_of(target.branch, known, lambda name: weights[name].double())

    return (at(1.0) - at(0.0)).flatten()


def end_rows(target: FitTarget, value: torch.Tensor, images: int) -> torch.Tensor:
    """A value of the chain's end as rows of the layer's outputs, [images, positions, O]."""
    for node in reversed(target.chain):
        if node.target in _PERMUTATIONS:
            value = _permuted_back(node, value)
    return output_rows(target, value, images)


def output_rows(target: FitTarget, value: torch.Tensor, images: int) -> torch.Tensor:
    """What the layer returns as rows, [images, positions, O]."""
    value = value.movedim(channel_axis(target.layer), -1)
    return value.reshape(images, -1, value.shape[-1])


def _permuted_back(node: fx.Node, value: torch.Tensor) -> torch.Tensor:
    if node.target is aten.transpose.int:
        return value.transpose(*node.args[1:])
    order = torch.tensor(node.args[1]) % value.dim()
    return value.permute(*order.argsort().tolist())
