"""The cost of a cascade.

The *expected cost per image*, ``charged`` in code and files, is a ratio of the heavy expert's cost.
Both passes of an escalated image are paid::

    charged = (c_light + escalation * (c_heavy - c_shared)) / c_heavy

The costs c of one image are in MACs or in any other unit; ``escalation`` is the share of images
that escalate, and c_shared is the cost of the first blocks that both experts share, which run once.
A prior that needs a second view adds the cost of that view to c_light. The *uncharged cost* leaves
out the light pass of escalated images and is there for comparison with papers that report it (arXiv
2603.12354)::

    uncharged = ((1 - escalation) * c_light + escalation * c_heavy) / c_heavy
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agflow._core.loader import core
from agflow._core.request import request_json
from agflow.cascade.markup import facts_html
from agflow.errors import InvalidValueError

if TYPE_CHECKING:
    from torch import nn

NO_IMAGE = "no image yet"
MACS = "MACs"
"""The unit of costs that were counted."""
RELATIVE = "x"
"""The unit of costs of which only the ratio is known: ``0.25x`` of ``1x``."""


def cost_text(cost: float, unit: str) -> str:
    """A cost for people: ``0.61 M MACs``, ``0.25 ms``, ``0.25x``."""
    if math.isnan(cost):
        return "not known yet"
    if unit == MACS:
        return f"{cost / 1e6:.2f} M MACs"
    return f"{cost:.4g}{'' if unit == RELATIVE else ' '}{unit}"


@dataclass(frozen=True)
class CascadeCosts:
    """Costs of one image in a cascade, in any unit: MACs, milliseconds, money.

    Attributes
    ----------
    light, heavy : a pass through the expert
    shared : the first blocks that both experts share, which an escalated image does not pay again
    second_view : the second view behind the prior ``agreement``; only a cascade that routes by this
        prior pays it
    unit : of all of them, a word: ``"MACs"``, ``"ms"``, ``"EUR"``

    Examples
    --------
    >>> import agflow
    >>> agflow.cascade.CascadeCosts(light=0.2, heavy=1.0, unit="EUR")
    CascadeCosts(light=0.2, heavy=1.0, shared=0, second_view=0, unit='EUR')
    """

    light: float
    heavy: float
    shared: float = 0
    second_view: float = 0
    unit: str = MACS

    @classmethod
    def of(cls, light: nn.Module, heavy: nn.Module, shared_blocks: int = 0) -> CascadeCosts:
        """Count the MACs of two experts.

        Parameters
        ----------
        shared_blocks : first blocks that, with the embeddings, run once for both experts; 0 shares
            nothing
        """
        from agflow.models import count_macs, prefix_macs  # torch, which costs alone do not need

        return cls(
            count_macs(light),
            count_macs(heavy),
            prefix_macs(heavy, shared_blocks) if shared_blocks else 0,
        )


def read_costs(costs: CascadeCosts | Sequence[float]) -> CascadeCosts:
    """Read the costs of both experts in either form that users write them.

    Parameters
    ----------
    costs : costs with their unit, or a pair (light, heavy) of which only the ratio counts

    Raises
    ------
    InvalidValueError
        It is neither, or a cost is not above 0 and finite.

    Examples
    --------
    >>> from agflow.cascade.ledger import read_costs
    >>> read_costs((0.25, 1.0))
    CascadeCosts(light=0.25, heavy=1.0, shared=0, second_view=0, unit='x')
    """
    if not isinstance(costs, CascadeCosts):
        costs = CascadeCosts(*_pair(costs), unit=RELATIVE)
    for expert, cost in (("light", costs.light), ("heavy", costs.heavy)):
        if not 0 < cost < math.inf:
            raise InvalidValueError(
                f"costs: the {expert} expert costs {cost}, expected a number above 0 and finite: "
                "give both costs of one image, such as (0.25, 1.0)"
            )
    return costs


def _pair(costs: Any) -> tuple[float, float]:
    try:
        numbers = [] if isinstance(costs, str) else [float(cost) for cost in costs]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 2:
        raise InvalidValueError(
            f"costs: got {costs!r:.60}, expected a pair (light, heavy) such as (0.25, 1.0), or "
            "CascadeCosts(light, heavy, unit='ms')"
        )
    return numbers[0], numbers[1]


@dataclass(frozen=True, repr=False)
class Ledger:
    """The cost of a number of images that went through a cascade.

    Attributes
    ----------
    samples, escalated : numbers of images
    escalation : escalated / samples
    light_cost, heavy_cost, shared_cost, cost_unit : the costs of one image (:class:`CascadeCosts`)
    charged : expected cost per image, a ratio of the heavy expert's
        (:mod:`agflow.cascade.ledger`); NaN of no image, as the other shares of such a ledger
    uncharged : the same without the light pass of escalated images
    break_even : the escalation at which ``charged`` is 1; 0 where none saves anything
    verdict : ``"loss"`` where ``charged`` is 1 or more, ``"gain"`` where it is less, and ``"no
        image yet"``

    Examples
    --------
    >>> import agflow
    >>> costs = agflow.cascade.CascadeCosts(light=20, heavy=100)
    >>> agflow.cascade.Ledger.of(costs, samples=1000, escalated=250).charged
    0.45
    """

    samples: int
    escalated: int
    escalation: float
    light_cost: float
    heavy_cost: float
    shared_cost: float
    cost_unit: str
    charged: float
    uncharged: float
    break_even: float
    verdict: str

    @classmethod
    def of(cls, costs: CascadeCosts, samples: int, escalated: int) -> Ledger:
        """Compute the ledger of ``samples`` images, of which ``escalated`` went on.

        Raises
        ------
        EmptyError
            There is no sample.
        InvalidValueError
            A cost is not above 0 and finite, the shared cost exceeds an expert's, the unit is no
            word, or more images escalated than there are.
        """
        request = {
            "light_cost": costs.light,
            "heavy_cost": costs.heavy,
            "shared_cost": costs.shared,
            "cost_unit": costs.unit,
            "samples": samples,
            "escalated": escalated,
        }
        return cls(**json.loads(core().ledger(request_json(request))))

    @classmethod
    def empty(cls, costs: CascadeCosts) -> Ledger:
        """The ledger of a cascade that has seen no image yet."""
        prices = (costs.light, costs.heavy, costs.shared, costs.unit)
        return cls(0, 0, math.nan, *prices, math.nan, math.nan, math.nan, NO_IMAGE)

    def __str__(self) -> str:
        if not self.samples:
            return NO_IMAGE
        return (
            f"{self.samples} images, {100 * self.escalation:.1f} % escalated: "
            f"expected cost per image {self.charged:.3f}x the heavy expert's, a {self._word} "
            f"(break-even at {100 * self.break_even:.1f} %)"
        )

    @property
    def costs(self) -> CascadeCosts:
        """The costs of one image, as they were given."""
        return CascadeCosts(self.light_cost, self.heavy_cost, self.shared_cost, unit=self.cost_unit)

    @property
    def _word(self) -> str:
        return "LOSS" if self.verdict == "loss" else self.verdict

    def __repr__(self) -> str:
        return f"<agflow.Ledger: {self}>"

    def _repr_html_(self) -> str:
        return facts_html(
            f"Ledger of {self.samples} images: {self._word}",
            {
                "expected cost per image": f"{self.charged:.3f}x of the heavy expert's",
                "without the light pass of escalated images": f"{self.uncharged:.3f}x",
                "escalated": f"{self.escalated} ({100 * self.escalation:.1f} %)",
                "break-even at": f"{100 * self.break_even:.1f} % escalated",
                "light expert": f"{cost_text(self.light_cost, self.cost_unit)} per image",
                "heavy expert": f"{cost_text(self.heavy_cost, self.cost_unit)} per image",
                "shared by both": f"{cost_text(self.shared_cost, self.cost_unit)} per image",
            },
        )
