"""Evaluation: accuracy of models, agreement with a dense one, interleaved timings and latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.evaluation.accuracy import (
        Accuracy as Accuracy,
        evaluate as evaluate,
        logits as logits,
    )
    from agflow.evaluation.agreement import (
        Agreement as Agreement,
        NeighbourAccuracy as NeighbourAccuracy,
        evaluate_agreement as evaluate_agreement,
    )
    from agflow.evaluation.durations import Latency as Latency
    from agflow.evaluation.intervals import Estimate as Estimate
    from agflow.evaluation.timing import (
        Speed as Speed,
        Timing as Timing,
        interleaved as interleaved,
        time_models as time_models,
    )

_HOMES = {
    "Accuracy": "accuracy",
    "Agreement": "agreement",
    "Estimate": "intervals",
    "Latency": "durations",
    "NeighbourAccuracy": "agreement",
    "Speed": "timing",
    "Timing": "timing",
    "evaluate": "accuracy",
    "evaluate_agreement": "agreement",
    "interleaved": "timing",
    "logits": "accuracy",
    "time_models": "timing",
}
__all__ = [
    "Accuracy",
    "Agreement",
    "Estimate",
    "Latency",
    "NeighbourAccuracy",
    "Speed",
    "Timing",
    "evaluate",
    "evaluate_agreement",
    "interleaved",
    "logits",
    "time_models",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
