"""Costs of a traced graph as functions of the sizes of its channel groups."""

# torch.fx types the arguments of a node as whatever an operator may take.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import cast

import torch
from torch import fx

from agflow.models.costs import Costs, Product, Size
from agflow.models.counting import macs_of_operation, multiplies
from agflow.models.tracing.axes import Dim, Leaf, atoms, flat, size
from agflow.models.tracing.call import Call
from agflow.models.tracing.rules import rule_of
from agflow.models.tracing.rules.einsum import labels_of
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import (
    Use,
    batch_of,
    callers,
    contractions,
    dims_of,
    parameter_names,
)

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_EINSUM = torch.ops.aten.einsum.default
_MATRIX_PRODUCTS = {
    torch.ops.aten.matmul.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.mm.default,
    torch.ops.aten.baddbmm.default,
}
_NORMS = {
    torch.ops.aten.batch_norm.default: (1, (1, 2)),
    torch.ops.aten.layer_norm.default: (-1, (2, 3)),
    torch.ops.aten.group_norm.default: (1, (2, 3)),
}
"""By operator, the axis of the channels and which arguments are weight and bias."""
_ONE: Size = ((1, ()),)


def costs_of(tracer: Tracer, names: Mapping[Leaf, str], branches: Iterable[str] = ()) -> Costs:
    """Multiply-accumulates and parameters of everything in the graph, for one image.

    Parameters
    ----------
    names : by class of axes, the name of the group that it is
    branches : modules that may vanish; what belongs to one costs nothing then
    """
    count, branches = _Count(tracer, names), tuple(branches)
    contracting = {use.node: use for use in contractions(tracer)}
    products = []
    for node in tracer.program.graph.nodes:
        if node in contracting:
            product = count.contraction(contracting[node])
        elif node.target in _MATRIX_PRODUCTS:
            product = count.matrix_product(node)
        elif node.target is _EINSUM:
            product = count.einstein_sum(node)
        elif node.target is _ATTENTION:
            product = count.attention(node)
        else:
            product = count.norm(node) or count.unruled(node)
        if product is not None:
            products.append(_within(product, callers(node), branches))
    for name in count.parameters.values():
        if name not in count.counted:
            path = name.split(".")
            owners = [".".join(path[:k]) for k in range(1, len(path))]
            product = Product("parameters", name, count.volume(tracer.parameters[name]))
            products.append(_within(product, owners, branches))
    own = {name: leaf.extent for leaf, name in names.items()}
    return Costs({**own, **dict.fromkeys(branches, 1)}, tuple(products))


def _within(product: Product, owners: Iterable[str], branches: tuple[str, ...]) -> Product:
    """A product that exists as long as the branches do that it is in."""
    return replace(product, times=tuple(branch for branch in branches if branch in set(owners)))


class _Count:
    """Counts nodes, in terms of the sizes of groups.

    Attributes
    ----------
    parameters : by placeholder, the name of the parameter that it is
    counted : the parameters that products of nodes have
    """

    def __init__(self, tracer: Tracer, names: Mapping[Leaf, str]):
        self.tracer, self.names = tracer, names
        self.parameters = parameter_names(tracer.program)
        self.counted: set[str] = set()
        self._batch = batch_of(tracer)

    def volume(self, dims: Iterable[Dim]) -> Size:
        """Elements of a tensor."""
        found = _ONE
        for dim in dims:
            for factor in flat(dim):
                found = _times(found, self._of_factor(factor))
        return found

    def _of_factor(self, factor: Leaf) -> Size:
        if factor in self.names:
            return ((1, (self.names[factor],)),)
        if factor.parts is None:
            return ((factor.extent, ()),)
        return _sum(term for part in factor.parts for term in self.volume([part]))

    def _per_image(self, node: fx.Node, dims: Iterable[Dim]) -> Size:
        """Combinations of places of a node's axes for one image.

        What depends on no image may all the same lie along the axis of the images, or twice.
        """
        dims = list(dims)
        times = sum(leaf in self._batch for dim in dims for leaf in atoms(dim))
        constant = node in self.tracer.parameters_of
        images = size(list(self._batch)) ** (times if constant else max(times, 1))
        return tuple((factor // images, of) for factor, of in self.volume(dims))

    def contraction(self, use: Use) -> Product:
        """Of an activation with a weight, its parameters with it where they are its own."""
        places, weight = list(dims_of(self.tracer, use.rows)), dims_of(self.tracer, use.weight)
        del places[use.channels]
        name, kernel = callers(use.node)[-1], _size(use.kernel)
        if use.weight not in self.tracer.parameters_of:  # one for each image
            macs = self._per_image(use.node, [*places, weight[use.reads], weight[use.emits]])
            return _product(name, _times(macs, kernel))
        places = self._per_image(use.node, places)
        inputs, outputs = self.volume([weight[use.reads]]), self.volume([weight[use.emits]])
        rows = _constant(places) if use.groups == 1 or use.emits == 0 else None
        own = self.parameters  # filters that are buffers count as none
        if rows is None or use.weight.name not in own or use.parameters[0] in self.counted:
            return _product(name, _times(_times(places, kernel), _times(inputs, outputs)))
        self.counted.add(use.parameters[0])
        bias = self._own(use.node, (2,)) if use.is_layer else ()
        self.counted.update(bias)
        common = Product("linear", name, outputs, rows, inputs, bias=bool(bias))
        if not use.is_convolution:
            return common
        groups = () if use.groups == 1 else self._groups(weight[use.emits], use.groups)
        return replace(
            common, kind="convolution", kernel=use.kernel, stride=use.stride, groups=groups
        )

    def _groups(self, dim: Dim, groups: int) -> Size:
        """The number of a convolution's groups, the first factors of its filters."""
        leading = []
        while prod(factor.extent for factor in leading) < groups:
            leading.append(flat(dim)[len(leading)])
        return self.volume([leading])

    def _own(self, node: fx.Node, arguments: Iterable[int]) -> tuple[str, ...]:
        """The parameters that arguments of a node are; none where one is none or was counted."""
        found = [node.args[place] if place < len(node.args) else None for place in arguments]
        names = [self.parameters.get(getattr(argument, "name", "")) for argument in found]
        own = tuple(name for name in names if name and name not in self.counted)
        return own if len(own) == len(names) else ()

    def norm(self, node: fx.Node) -> Product | None:
        """A norm with scale and shift; None where a node is none."""
        if node.target not in _NORMS:
            return None
        axis, arguments = _NORMS[node.target]
        names = self._own(node, arguments)
        places = list(dims_of(self.tracer, node))
        outputs = self.volume([places.pop(axis)])
        rows = _constant(self._per_image(node, places))
        if not names or rows is None or len(self.tracer.parameters[names[0]]) > 1:
            return None
        self.counted.update(names)
        return Product("norm", callers(node)[-1], outputs, rows)

    def matrix_product(self, node: fx.Node) -> Product:
        """Of two activations."""
        inner = dims_of(self.tracer, node.args[-2])[-1]
        macs = self._per_image(node, [*dims_of(self.tracer, node), inner])
        return _product(callers(node)[-1], macs)

    def einstein_sum(self, node: fx.Node) -> Product | None:
        """A multiplication for each combination of places; None of a single tensor's sum."""
        equation, operands = cast("tuple[str, list[fx.Node]]", node.args)
        dims = [dims_of(self.tracer, operand) for operand in operands]
        labels, _ = labels_of(equation, [len(of) for of in dims])
        places: dict[str, Dim] = {}
        for of, names in zip(dims, labels, strict=True):
            for dim, label in zip(of, names, strict=True):
                places[label] = places.get(label) or dim
        macs = self._per_image(node, places.values())
        return _product(callers(node)[-1], macs) if len(operands) > 1 else None

    def unruled(self, node: fx.Node) -> Product | None:
        """Products in an operator without a rule, such as a recurrent layer: all of it stays."""
        if not multiplies(node.target) or rule_of(Call(self.tracer, node)):
            return None
        arguments, named = (fx.map_arg(given, _empty) for given in (node.args, node.kwargs))
        macs = macs_of_operation(node.target, arguments, named)
        return _product(callers(node)[-1], _size(macs // size(list(self._batch))))

    def attention(self, node: fx.Node) -> Product:
        """Both products of an attention."""
        q, k, v = (dims_of(self.tracer, value) for value in node.args[:3])
        weights = _times(self._per_image(node, q[:-1]), self.volume([k[-2]]))
        widths = _sum((*self.volume([q[-1]]), *self.volume([v[-1]])))
        return _product(callers(node)[-1], _times(weights, widths))


def _empty(node: fx.Node) -> torch.Tensor:
    """A tensor without values such as the node's."""
    value = node.meta["val"]
    return torch.empty(value.shape, dtype=value.dtype, device="meta")


def _constant(size: Size) -> int | None:
    """A size that depends on no group, else None."""
    factor, names = size[-1]
    return factor if len(size) == 1 and not names else None


def _size(number: int) -> Size:
    return ((number, ()),)


def _product(name: str, macs: Size) -> Product:
    """What costs multiply-accumulates alone."""
    return Product("product", name, _ONE, inputs=macs)


def _times(a: Size, b: Size) -> Size:
    """The product of two sizes."""
    return _sum((x * y, tuple(sorted((*of, *by)))) for x, of in a for y, by in b)


def _sum(terms: Iterable[tuple[int, tuple[str, ...]]]) -> Size:
    """A size of terms, those of the same layers taken together."""
    found: Counter[tuple[str, ...]] = Counter()
    for factor, of in terms:
        found[of] += factor
    return tuple((factor, of) for of, factor in found.items())
