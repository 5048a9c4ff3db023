"""Search: choose the light expert of a cascade by what the cascade costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.search.candidates import Candidate as Candidate
    from agflow.search.frontier import (
        EvaluatedCandidate as EvaluatedCandidate,
    )
    from agflow.search.frontier import (
        Frontier as Frontier,
    )
    from agflow.search.halving import (
        CascadeDesign as CascadeDesign,
    )
    from agflow.search.halving import (
        design_cascade as design_cascade,
    )
    from agflow.search.space import SearchSpace as SearchSpace

_HOMES = {
    "Candidate": "candidates",
    "CascadeDesign": "halving",
    "EvaluatedCandidate": "frontier",
    "Frontier": "frontier",
    "SearchSpace": "space",
    "design_cascade": "halving",
}
__all__ = [
    "Candidate",
    "CascadeDesign",
    "EvaluatedCandidate",
    "Frontier",
    "SearchSpace",
    "design_cascade",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
