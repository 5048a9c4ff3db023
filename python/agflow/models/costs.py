"""Costs of a model as functions of its layers' sizes: multiply-accumulates and parameters.

Both are sums of products of sizes.
Cuts of different groups meet in one matrix (its rows lose units of one layer, its columns of
another), so that what a unit saves depends on the others: costs are not additive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

Size = tuple[tuple[int, tuple[str, ...]], ...]
"""A sum of terms (coefficient, names of layers): coefficient × the size of each layer."""


def size(*terms: int | str | tuple) -> Size:
    """Make a size of terms: a number, the name of a layer, or (coefficient, name, …)."""
    read = {
        int: lambda term: (term, ()),
        str: lambda term: (1, (term,)),
        tuple: lambda term: (term[0], term[1:]),
    }
    return tuple(read[type(term)](term) for term in terms)


@dataclass(frozen=True)
class Product:
    """A part of the model that costs multiply-accumulates or parameters.

    MACs and parameters by kind, with r the rows: ``linear`` r·inputs·outputs and inputs·outputs (+
    outputs with a bias); ``convolution`` r·kernel·inputs·outputs and kernel·inputs·outputs (+
    outputs with a bias); ``attention`` r·r·(inputs + outputs), inputs the width of all queries and
    outputs that of all values, and none (zeros that fill up the narrower of the two for a fused
    kernel are not counted); ``product`` (of activations) r·inputs·outputs and none; ``pointwise``
    none and none; ``norm`` none and 2·outputs; ``parameters`` none and outputs.

    Attributes
    ----------
    name : of the module or parameter
    rows : vectors that go through it for one image; positions of a convolution's result
    inputs : channels in; of a convolution those that each of its groups reads
    times : branches without which it does not exist
    kernel : of a convolution, the elements of its kernel: 9 for 3x3
    stride : of a convolution, on which its time depends
    groups : of a convolution; none is one group. A depthwise one has one input, and as many groups
        as outputs
    """

    kind: str
    name: str
    outputs: Size
    rows: int = 1
    inputs: Size = ()
    heads: Size = ()
    bias: bool = False
    times: tuple[str, ...] = ()
    kernel: int = 1
    stride: int = 1
    groups: Size = ()

    @cached_property
    def layers(self) -> set[str]:
        """Names of the layers its cost depends on."""
        return {
            name
            for of in (self.inputs, self.outputs, self.heads, self.groups)
            for _, names in of
            for name in names
        } | set(self.times)

    def macs(self, sizes: Mapping[str, int]) -> int:
        """Multiply-accumulates per image at these sizes."""
        inputs, outputs = value(self.inputs, sizes), value(self.outputs, sizes)
        count = {
            "linear": self.rows * inputs * outputs,
            "convolution": self.rows * self.kernel * inputs * outputs,
            "attention": self.rows**2 * (inputs + outputs),
            "product": self.rows * inputs * outputs,
        }.get(self.kind, 0)
        return count * prod(sizes[branch] for branch in self.times)

    def params(self, sizes: Mapping[str, int]) -> int:
        """Parameters at these sizes."""
        inputs, outputs = value(self.inputs, sizes), value(self.outputs, sizes)
        count = {
            "linear": (inputs + self.bias) * outputs,
            "convolution": (self.kernel * inputs + self.bias) * outputs,
            "norm": 2 * outputs,
            "parameters": outputs,
        }.get(self.kind, 0)
        return count * prod(sizes[branch] for branch in self.times)

    def to_json(self) -> dict[str, Any]:
        sizes = {
            key: [[factor, *names] for factor, names in getattr(self, key)]
            for key in ("inputs", "outputs", "heads", "groups")
            if getattr(self, key)
        }
        window = {"kernel": self.kernel, "stride": self.stride}
        return {
            "kind": self.kind,
            "name": self.name,
            "rows": self.rows,
            **(window if self.kind == "convolution" else {}),
            **sizes,
            **({"bias": True} if self.bias else {}),
            **({"times": list(self.times)} if self.times else {}),
        }


@dataclass(frozen=True)
class Costs:
    """Costs of a model: all its products, and its own sizes.

    Attributes
    ----------
    sizes : by layer, how many units it has, per part; a branch has 1, or 0 once it is dropped
    """

    sizes: Mapping[str, int]
    products: tuple[Product, ...]

    def macs(self, kept: Mapping[str, int] | None = None) -> int:
        """Multiply-accumulates per image, with the sizes in ``kept`` instead of the model's own."""
        sizes = {**self.sizes, **(kept or {})}
        return sum(product.macs(sizes) for product in self.products)

    def params(self, kept: Mapping[str, int] | None = None) -> int:
        """Parameters, likewise."""
        sizes = {**self.sizes, **(kept or {})}
        return sum(product.params(sizes) for product in self.products)

    def of_unit(self, layer: str, parts: int = 1) -> tuple[int, int]:
        """MACs and parameters that one unit of a layer saves while all else stays.

        Parameters
        ----------
        parts : of the layer (see :class:`agflow.models.ChannelGroup`)
        """
        about = replace(
            self, products=tuple(product for product in self.products if layer in product.layers)
        )
        less = {layer: self.sizes[layer] - 1}
        return (about.macs() - about.macs(less)) // parts, (
            about.params() - about.params(less)
        ) // parts

    def to_json(self) -> dict[str, Any]:
        """As the metadata ``agflow.costs`` holds it."""
        return {
            "sizes": dict(self.sizes),
            "products": [product.to_json() for product in self.products],
        }


def value(size: Size, sizes: Mapping[str, int]) -> int:
    """Evaluate a size."""
    return sum(factor * prod(sizes[name] for name in names) for factor, names in size)
