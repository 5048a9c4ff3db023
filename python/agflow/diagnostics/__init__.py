"""Diagnostics: how far scores and confidence can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.diagnostics.confidence import Reliability as Reliability
    from agflow.diagnostics.confidence import reliability as reliability
    from agflow.diagnostics.random_control import (
        RandomControl as RandomControl,
    )
    from agflow.diagnostics.random_control import (
        Verdict as Verdict,
    )
    from agflow.diagnostics.random_control import (
        against_random as against_random,
    )
    from agflow.diagnostics.units import (
        Diagnosis as Diagnosis,
    )
    from agflow.diagnostics.units import (
        Stability as Stability,
    )
    from agflow.diagnostics.units import (
        diagnose as diagnose,
    )
    from agflow.diagnostics.units import (
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
