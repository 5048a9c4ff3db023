"""Pruning: score units, plan what to keep under a budget, remove the rest and compensate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.pruning.allocation import Allocation as Allocation
    from agflow.pruning.latency import LatencyTable as LatencyTable
    from agflow.pruning.planning import (
        Plan as Plan,
        PlanDiff as PlanDiff,
        PlannedLayer as PlannedLayer,
        plan as plan,
    )
    from agflow.pruning.pruner import prune as prune
    from agflow.pruning.scoring import Scores as Scores, criteria as criteria, score as score

_HOMES = {
    "Allocation": "allocation",
    "LatencyTable": "latency",
    "Plan": "planning",
    "PlanDiff": "planning",
    "PlannedLayer": "planning",
    "Scores": "scoring",
    "criteria": "scoring",
    "plan": "planning",
    "prune": "pruner",
    "score": "scoring",
}
__all__ = [
    "Allocation",
    "LatencyTable",
    "Plan",
    "PlanDiff",
    "PlannedLayer",
    "Scores",
    "criteria",
    "plan",
    "prune",
    "score",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
