"""Evaluation: accuracy of models, interleaved timings and latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.evaluation.accuracy import (
        Accuracy as Accuracy,
        evaluate as evaluate,
        logits as logits,
    )
    from agflow.evaluation.durations import Latency as Latency
    from agflow.evaluation.timing import (
        Speed as Speed,
        Timing as Timing,
        interleaved as interleaved,
        time_models as time_models,
    )

_HOMES = {
    "Accuracy": "accuracy",
    "Latency": "durations",
    "Speed": "timing",
    "Timing": "timing",
    "evaluate": "accuracy",
    "interleaved": "timing",
    "logits": "accuracy",
    "time_models": "timing",
}
__all__ = [
    "Accuracy",
    "Latency",
    "Speed",
    "Timing",
    "evaluate",
    "interleaved",
    "logits",
    "time_models",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
