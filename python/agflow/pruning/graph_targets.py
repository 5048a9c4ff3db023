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

from agflow.models.tracing.chains import PERMUTATIONS, chain_behind, unit_of
from agflow.models.tracing.graph_run import GraphRun

aten = torch.ops.aten
_LAYERS = (aten.conv2d.default, aten.conv2d.padding, aten.linear.default)


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
        return _bias_of(self.layer)

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

    Grouped convolutions and weights that are read twice, or by something else, are none; nor are
    layers that read constants, or whose bias is computed, as of three biases joined.
    """
    readers = [
        node for node in run.nodes if any(run.names.get(a) == weight for a in node.args[1:2])
    ]
    used = [user for node, name in run.names.items() if name == weight for user in node.users]
    if len(readers) != 1 or len(used) != 1 or readers[0].target not in _LAYERS:
        return None
    (layer,) = readers
    bias = _bias_of(layer)
    if run.is_constant(layer.args[0]) or not (bias is None or bias in run.names):
        return None
    groups = layer.args[6] if len(layer.args) > 6 else layer.kwargs.get("groups", 1)
    rows = layer.args[0].meta["val"].shape[0]
    by_image = rows % run.batch_size == 0 if is_linear(layer) else rows == run.batch_size
    return layer if groups == 1 and by_image else None


def _bias_of(layer: fx.Node) -> fx.Node | None:
    given = layer.args[2] if len(layer.args) > 2 else layer.kwargs.get("bias")
    return given if isinstance(given, fx.Node) else None


def is_linear(layer: fx.Node) -> bool:
    """Whether the layer is a linear one, not a convolution."""
    return layer.target is aten.linear.default


def target_of(run: GraphRun, layer: fx.Node) -> FitTarget:
    """Follow the affine chain behind a layer to its end."""
    chain = chain_behind(layer, channel_axis(layer), run.names, run.is_constant)
    first = chain.nodes[0] if chain.nodes else None
    norm = first if first is not None and first.target is aten.batch_norm.default else None
    end = chain.sum or (chain.nodes[-1] if chain.nodes else layer)
    return FitTarget(layer, chain.nodes, norm, end)


def channel_axis(layer: fx.Node) -> int:
    """The axis of the outputs in what the layer returns."""
    return -1 if is_linear(layer) else 1


def factor_of(
    run: GraphRun, target: FitTarget, weights: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    """The factor [O], float64, by which the chain multiplies each output of the layer."""
    device = weights[run.names[target.layer.args[1]]].device

    def at(fill: float) -> torch.Tensor:
        known = {target.layer: unit_of(target.layer, channel_axis(target.layer), fill).to(device)}
        return run.value_of(target.branch, known, lambda name: weights[name].double())

    return (at(1.0) - at(0.0)).flatten()


def end_rows(target: FitTarget, value: torch.Tensor, images: int) -> torch.Tensor:
    """A value of the chain's end as rows of the layer's outputs, [images, positions, O]."""
    for node in reversed(target.chain):
        if node.target in PERMUTATIONS:
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
