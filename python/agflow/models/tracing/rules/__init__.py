"""What each operator does with the axes of its tensors: one module for a kind of operator.

A rule takes a :class:`~agflow.models.tracing.call.Call`, unifies and freezes axes, and returns the
axes of the result. What it cannot answer for it freezes, or returns None: then all that the call
reads stays.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from agflow.models.tracing.call import Call, Value
from agflow.models.tracing.rules import (
    attention,
    constants,
    convolution,
    einsum,
    elementwise,
    norms,
    pieces,
    pooling,
    products,
    reductions,
    shapes,
)

_RULES: dict[str, Callable[[Call], Value]] = {
    name: rule
    for module in (
        attention,
        constants,
        convolution,
        einsum,
        elementwise,
        norms,
        pieces,
        pooling,
        products,
        reductions,
        shapes,
    )
    for name, rule in module.RULES.items()
}


def rule_of(call: Call) -> Callable[[Call], Value] | None:
    """The rule for a call's operator; torch says itself which work on each element alone."""
    if call.name in _RULES:
        return _RULES[call.name]
    pointwise = torch.Tag.pointwise in getattr(call.node.target, "tags", ())
    return elementwise.elementwise if pointwise else None
