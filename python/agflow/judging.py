"""A cascade on images that chose neither its weights nor its threshold, beside random routing at the same escalation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from agflow.cascade import Cascade
from agflow.evaluation import evaluate
from agflow.routing import Ledger, Predictions, curve


@dataclass(frozen=True)
class Judgement:
    """Top-1 accuracies of a cascade and its experts, and what the cascade cost.

    Attributes
    ----------
    random : what random routing at the same escalation gets, with its interval of 95 % confidence, ``random_low`` to ``random_high``
    ledger : of the running cascade
    """

    images: int
    light: float
    heavy: float
    cascade: float
    random: float
    random_low: float
    random_high: float
    ledger: Ledger

    def __str__(self) -> str:
        return (f"{100 * self.cascade:.2f} % (heavy {100 * self.heavy:.2f} %, light {100 * self.light:.2f} %) at {self.ledger.charged:.3f}x charged, "
                f"{100 * self.ledger.escalation:.1f} % escalated; random routing {100 * self.random:.2f} % "
                f"({100 * self.random_low:.2f} to {100 * self.random_high:.2f} %)")


def judge_cascade(cascade: Cascade, loader: Iterable, predictions: Predictions, *, progress: bool = True) -> Judgement:
    """Run ``cascade`` over ``loader`` and set it beside its experts.

    Parameters
    ----------
    loader : (images float32 [B, C, H, W], labels int64 [B]) that chose nothing of the cascade
    predictions : of both experts on the same images

    Raises
    ------
    EmptyError
        The loader gave no batch.
    """
    cascade.reset_ledger()
    accuracy = evaluate(cascade, loader, progress=progress)
    ledger = cascade.ledger
    points = curve(predictions, prior=cascade.prior, points=len(predictions) + 1).columns
    at = int(np.abs(points["escalated"] - ledger.escalated).argmin())
    return Judgement(accuracy.images, predictions.light_accuracy, predictions.heavy_accuracy, accuracy.top1,
                     *(float(points[name][at]) for name in ("random_accuracy", "random_accuracy_low", "random_accuracy_high")), ledger)
