"""What an activation behind a fitted layer cuts off: errors there reach nobody.

ReLU returns 0 for every negative value, ReLU6 returns 6 for every larger one. Where the value of
the dense network lies beyond such a limit, any value beyond the same limit does as well. Which
values of the cut network lie there depends on the fit: a layer is fitted to the dense values first,
and then once more, from its new weights, to what the limits leave of the gap. This is one step of
majorisation-minimisation of ``sum max(c, 0)^2 over d < 0, plus sum (d - c)^2 over the rest``.
"""

# torch.fx types the arguments of a node as anything that a graph can hold.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx

aten = torch.ops.aten
_RELU = (aten.relu.default, aten.relu_.default)
_HARDTANH = (aten.hardtanh.default, aten.hardtanh_.default)
_HARDSWISH = (aten.hardswish.default, aten.hardswish_.default)


@dataclass(frozen=True)
class Limits:
    """An activation that is constant up to ``low`` and from ``high`` on."""

    low: float
    high: float

    def gap(self, dense: torch.Tensor, cut: torch.Tensor) -> torch.Tensor:
        """What is missing in the cut network's values before the activation."""
        wanted = torch.where(dense > self.low, dense, cut.clamp(max=self.low))
        return torch.where(dense < self.high, wanted, cut.clamp(min=self.high)) - cut


def limits_behind(node: fx.Node) -> Limits | None:
    """The limits of the activation that alone reads a value; None where something else does."""
    if len(node.users) != 1:
        return None
    (activation,) = node.users
    if activation.target in _RELU:
        return Limits(0.0, math.inf)
    if activation.target in _HARDSWISH:
        return Limits(-3.0, math.inf)
    if activation.target in _HARDTANH:  # ReLU6 as well
        low, high = (*activation.args[1:3], -1.0, 1.0)[:2]
        return Limits(low, high)
    return None
