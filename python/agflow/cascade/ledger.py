"""The cost of a cascade: what is charged for an image, and when that is a loss."""

from __future__ import annotations

import json
from dataclasses import dataclass

from torch import nn

from agflow._core.loader import core
from agflow.models import count_macs, prefix_macs


@dataclass(frozen=True)
class Costs:
    """MACs per image of the light expert, the heavy expert, what an escalated image need not pay again, and of the second
    look behind the prior agreement, which only a cascade that routes by this prior pays."""

    light: int
    heavy: int
    shared: int = 0
    look: int = 0

    @classmethod
    def of(cls, light: nn.Module, heavy: nn.Module, shared_blocks: int = 0) -> Costs:
        """Of two experts whose embeddings and first ``shared_blocks`` blocks are computed once for both; 0 shares nothing."""
        return cls(
            count_macs(light),
            count_macs(heavy),
            prefix_macs(heavy, shared_blocks) if shared_blocks else 0,
        )


@dataclass(frozen=True)
class Ledger:
    """What a cascade has cost so far, per image, as ratios of the heavy expert.

    charged = (c_light + escalation * (c_heavy - c_shared)) / c_heavy; uncharged leaves out the light pass of escalated
    images. ``break_even`` is the escalation at which charged = 1; at or above it the verdict is "loss".
    """

    samples: int
    escalated: int
    escalation: float
    light_macs: int
    heavy_macs: int
    shared_macs: int
    charged: float
    uncharged: float
    break_even: float
    verdict: str

    @classmethod
    def of(cls, costs: Costs, samples: int, escalated: int) -> Ledger:
        request = {
            "light_macs": costs.light,
            "heavy_macs": costs.heavy,
            "shared_macs": costs.shared,
            "samples": samples,
            "escalated": escalated,
        }
        return cls(**json.loads(core().ledger(json.dumps(request))))

    def __str__(self) -> str:
        return (
            f"{self.samples} images, {100 * self.escalation:.1f} % escalated: {self.charged:.3f}x charged "
            f"({self.uncharged:.3f}x uncharged), break-even at {100 * self.break_even:.1f} %: {self.verdict}"
        )
