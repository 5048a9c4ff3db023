"""The verdict on a cascade, on both counts: is its limit guaranteed, and does it save anything."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from agflow._core.loader import core
from agflow._core.request import request_json

if TYPE_CHECKING:
    from agflow.cascade.router import Router
    from agflow.cascade.router_evaluation import RouterEvaluation
    from agflow.evaluation.timing import Speed


@dataclass(frozen=True)
class Verdict:
    """Whether a cascade may be deployed, on two counts: its guarantee, and what it costs.

    The texts are those of the command ``agflow route`` and of every report.

    Attributes
    ----------
    guarantee : ``"PASS"``, ``"FAIL"`` or ``"INSUFFICIENT DATA"``: that of the router, but
        ``"FAIL"`` where the 95 % confidence interval on test images lies beyond the router's limit
    cost : ``"gain"`` or ``"loss"`` by the expected cost per image (:mod:`agflow.cascade.ledger`)
    clock : ``"gain"``, ``"loss"`` or ``"too noisy to tell"`` by the images per second
        (:class:`agflow.evaluation.Speed`); ``""`` where nothing was timed
    deploy : whether it is guaranteed and no loss, neither by its cost nor clearly by the clock
    line : both counts with their figures
    meaning : what is guaranteed, or why it is not
    cure : what to do where ``deploy`` is false, else ``""``

    Examples
    --------
    See :attr:`agflow.Router.counts`, which is one.
    """

    guarantee: str
    cost: str
    clock: str
    deploy: bool
    line: str
    meaning: str
    cure: str

    @classmethod
    def of(
        cls,
        router: Router,
        evaluation: RouterEvaluation | None = None,
        speed: Speed | None = None,
    ) -> Verdict:
        """The verdict on a cascade.

        Parameters
        ----------
        router : calibrated
        evaluation : of the router on test images, whose costs count; without one, the costs are
            those of the images that calibrated the router
        speed : of the cascade over the heavy expert (:meth:`agflow.evaluation.Timing.speed_over`)
        """
        request = {
            "router": asdict(router),
            "ledger": asdict(evaluation.ledger if evaluation else router.ledger),
            "difference": evaluation
            and {"observed": evaluation.difference, "interval": evaluation.difference_interval},
            "clock": speed and speed._asdict(),
        }
        return cls(**json.loads(core().verdict(request_json(request))))

    def next(self, deployed: str) -> str:
        """The line that says what to do: the cure, or ``deployed`` where there is none."""
        return f"next: {self.cure or deployed}"

    def __str__(self) -> str:
        return self.line
