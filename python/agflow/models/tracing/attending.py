"""Heads of attention: axes in each of whose units activations are multiplied with each other."""

from __future__ import annotations

from agflow.models.tracing.axes import Leaf
from agflow.models.tracing.multiplied import products_of
from agflow.models.tracing.tracer import Tracer


def head_axes(tracer: Tracer) -> set[Leaf]:
    """The classes of axes that lead both operands of a product of activations.

    Queries [B, heads, N, d] meet keys [B, heads, d, N] in each head by itself. A product with a
    weight, which all places share, is no attention.
    """
    return {
        leaf
        for product in products_of(tracer)
        for leaf in product.leaves(tracer, 0, product.shared)
        & product.leaves(tracer, 1, product.shared)
    }
