"""Costs of a traced graph as functions of the sizes of its channel groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import fx

from agflow.models.costs import Costs, Product, Size, value
from agflow.models.tracing.axes import Dim, Leaf, flat
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import Use, callers, images_in, parameter_names, uses

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_MATRIX_PRODUCTS = {
    torch.ops.aten.matmul.default,
    torch.ops.aten.bmm.default,
    torch.ops.aten.mm.default,
}
_ONE: Size = ((1, ()),)


def costs_of(tracer: Tracer, names: Mapping[Leaf, str], branches: Iterable[str] = ()) -> Costs:
    """Multiply-accumulates and parameters of everything in the graph, for one image.

    Parameters
    ----------
    names : by class of axes, the name of the group that it is
    branches : modules that may vanish; what belongs to one costs nothing then
    """
    sizes = _Sizes(tracer, names)
    contractions = {use.node: use for use in uses(tracer)}
    readers = Counter(use.weight for use in contractions.values())
    branches, products, counted = tuple(branches), [], set()
    for node in tracer.program.graph.nodes:
        if node in contractions:
            use = contractions[node]
            product = sizes.of_layer(use) if readers[use.weight] == 1 else None
            if product is None:
                product = sizes.of_contraction(use)
            else:
                counted.add(use.weight.name)
        elif node.target in _MATRIX_PRODUCTS:
            product = sizes.of_matrix_product(node)
        elif node.target is _ATTENTION:
            product = sizes.of_attention(node)
        else:
            continue
        products.append(_within(product, callers(node), branches))
    for placeholder, name in parameter_names(tracer.program).items():
        if placeholder in counted:
            continue
        path = name.split(".")
        owners = [".".join(path[:k]) for k in range(1, len(path))]
        product = Product("parameters", name, sizes.volume(tracer.parameters[name]))
        products.append(_within(product, owners, branches))
    own = {name: leaf.extent for leaf, name in names.items()}
    return Costs({**own, **dict.fromkeys(branches, 1)}, tuple(products))


def _within(product: Product, owners: Iterable[str], branches: tuple[str, ...]) -> Product:
    """A product that exists as long as the branches do that it is in."""
    return replace(product, times=tuple(branch for branch in branches if branch in set(owners)))


@dataclass(frozen=True)
class _Sizes:
    """Sizes of axes and volumes of tensors, in terms of the sizes of groups."""

    tracer: Tracer
    names: Mapping[Leaf, str]

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

    def per_image(self, dims: Iterable[Dim]) -> Size:
        """Elements of a tensor for one image."""
        images = images_in(self.tracer.program)
        return tuple((factor // images, of) for factor, of in self.volume(dims))

    def of_layer(self, use: Use) -> Product | None:
        """A linear layer or a convolution with its weight, whose time can be measured, too.

        None for a weight that is computed, a transposed convolution, and rows that a cut changes.
        """
        rows = self._constant_rows(use)
        if use.weight.op != "placeholder" or use.rows is not use.node or rows is None:
            return None
        weight = self.tracer.values[use.weight]
        widths = {"inputs": self.volume([weight[use.reads]]), "rows": rows}
        name, outputs = callers(use.node)[-1], self.volume([weight[use.emits]])
        if not use.is_convolution:
            return Product("linear", name, outputs, **widths)
        groups = self._groups(use)
        if groups is None:
            return None
        window = {"kernel": use.kernel, "stride": _stride(use.node), "groups": groups}
        return Product("convolution", name, outputs, **widths, **window)

    def _constant_rows(self, use: Use) -> int | None:
        places = list(self.tracer.values[use.rows])
        del places[use.channels]
        rows = self.per_image(places)
        return rows[0][0] if len(rows) == 1 and not rows[0][1] else None

    def _groups(self, use: Use) -> Size | None:
        """The groups of a convolution; None where they are no axis and change with one."""
        if use.groups == 1:
            return ()
        passed = use.passed(self.tracer)
        if not passed & set(self.names):
            return ((use.groups, ()),)
        found = self.volume([[leaf] for leaf in passed])
        dense = {name: leaf.extent for leaf, name in self.names.items()}
        return found if value(found, dense) == use.groups else None

    def of_contraction(self, use: Use) -> Product:
        """The multiply-accumulates of a contraction with a weight."""
        places, weight = list(self.tracer.values[use.rows]), self.tracer.values[use.weight]
        del places[use.channels]
        matrix = _times(self.volume([weight[use.reads]]), self.volume([weight[use.emits]]))
        kernel: Size = ((use.kernel, ()),)
        return _computed(use.node, _times(_times(self.per_image(places), kernel), matrix))

    def of_matrix_product(self, node: fx.Node) -> Product:
        """The multiply-accumulates of a product of two activations."""
        a, _ = node.all_input_nodes
        inner = self.volume([self.tracer.values[a][-1]])
        return _computed(node, _times(self.per_image(self.tracer.values[node]), inner))

    def of_attention(self, node: fx.Node) -> Product:
        """The multiply-accumulates of both products of an attention."""
        q, k, v = (self.tracer.values[of] for of in node.args[:3])
        weights = _times(self.per_image(q[:-1]), self.volume([k[-2]]))
        widths = _sum((*self.volume([q[-1]]), *self.volume([v[-1]])))
        return _computed(node, _times(weights, widths))


def _computed(node: fx.Node, macs: Size) -> Product:
    """A product that costs multiply-accumulates alone, and whose time nothing measures."""
    return Product("product", callers(node)[-1], _ONE, inputs=macs)


def _stride(node: fx.Node) -> int:
    """The greatest step of a convolution."""
    steps = node.args[3] if len(node.args) > 3 else node.kwargs.get("stride", 1)
    return steps if isinstance(steps, int) else max(steps, default=1)


def _times(a: Size, b: Size) -> Size:
    """The product of two sizes."""
    return _sum((x * y, tuple(sorted((*of, *by)))) for x, of in a for y, by in b)


def _sum(terms: Iterable[tuple[int, tuple[str, ...]]]) -> Size:
    """A size of terms, those of the same layers taken together."""
    found: Counter[tuple[str, ...]] = Counter()
    for factor, of in terms:
        found[of] += factor
    return tuple((factor, of) for of, factor in found.items())
