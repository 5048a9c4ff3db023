"""Search: choose the light expert of a cascade by its expected cost at the heavy accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.search.candidates import Candidate as Candidate
    from agflow.search.design import CascadeDesign as CascadeDesign
    from agflow.search.frontier import (
        EvaluatedCandidate as EvaluatedCandidate,
        Frontier as Frontier,
    )
    from agflow.search.halving import design_cascade as design_cascade
    from agflow.search.space import SearchSpace as SearchSpace

_HOMES = {
    "Candidate": "candidates",
    "CascadeDesign": "design",
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
