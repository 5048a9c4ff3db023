"""Evaluation: accuracy of models and interleaved timings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.evaluation.accuracy import (
        Accuracy as Accuracy,
    )
    from agflow.evaluation.accuracy import (
        evaluate as evaluate,
    )
    from agflow.evaluation.accuracy import (
        logits as logits,
    )
    from agflow.evaluation.durations import Latency as Latency
    from agflow.evaluation.timing import Timing as Timing
    from agflow.evaluation.timing import race as race

_HOMES = {
    "Accuracy": "accuracy",
    "Latency": "durations",
    "Timing": "timing",
    "evaluate": "accuracy",
    "logits": "accuracy",
    "race": "timing",
}
__all__ = ["Accuracy", "Latency", "Timing", "evaluate", "logits", "race"]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
