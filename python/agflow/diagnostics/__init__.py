"""Diagnostics: how far scores and confidence can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.diagnostics.confidence import Reliability as Reliability, reliability as reliability
    from agflow.diagnostics.random_control import (
        RandomControl as RandomControl,
        Verdict as Verdict,
        against_random as against_random,
    )
    from agflow.diagnostics.units import (
        Diagnosis as Diagnosis,
        Stability as Stability,
        diagnose as diagnose,
        stability as stability,
    )

_HOMES = {
    "Diagnosis": "units",
    "RandomControl": "random_control",
    "Reliability": "confidence",
    "Stability": "units",
    "Verdict": "random_control",
    "against_random": "random_control",
    "diagnose": "units",
    "reliability": "confidence",
    "stability": "units",
}
__all__ = [
    "Diagnosis",
    "RandomControl",
    "Reliability",
    "Stability",
    "Verdict",
    "against_random",
    "diagnose",
    "reliability",
    "stability",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
