"""A router on images that chose neither weights nor threshold, beside random routing at the same escalation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from agflow.cascade import Cascade
from agflow.errors import InvalidValueError
from agflow.evaluation import evaluate
from agflow.routing import BOTH, Costs, Ledger, Predictions, Router, curve


@dataclass(frozen=True)
class Judgement:
    """Top-1 accuracies of a cascade and its experts, and what the cascade cost.

    Attributes
    ----------
    random : what random routing at the same escalation gets, with its interval of 95 % confidence, ``random_low`` to ``random_high``
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


def judge(predictions: Predictions, router: Router) -> Judgement:
    """What ``router`` makes of predictions that have been logged.

    Parameters
    ----------
    predictions : of images that chose nothing of the cascade, made with the router's temperature and light_weight

    Raises
    ------
    InvalidValueError
        The predictions lack the router's prior, or combine both answers by another weight than the router.
    """
    if router.answers == BOTH and predictions.light_weight != router.light_weight:
        raise InvalidValueError(f"the predictions combine both answers at a light_weight of {predictions.light_weight}, the router at {router.light_weight}: "
                                "predict again with light_weight=router.light_weight")
    escalated = int((predictions.prior(router.prior).astype(np.float64) < router.threshold).sum())  # as Go compares: a float32 prior, widened
    found = curve(predictions, prior=router.prior, points=len(predictions) + 1, answers=router.answers)
    points = found.columns
    at = int(np.abs(points["escalated"] - escalated).argmin())
    macs = (int(found.metadata[f"agflow.{name}_macs"]) for name in ("light", "heavy", "shared"))  # the prior's own included
    return Judgement(len(predictions), predictions.light_accuracy, predictions.heavy_accuracy, float(points["accuracy"][at]),
                     *(float(points[name][at]) for name in ("random_accuracy", "random_accuracy_low", "random_accuracy_high")),
                     Ledger.of(Costs(*macs), len(predictions), escalated))


def judge_cascade(cascade: Cascade, loader: Iterable, predictions: Predictions, *, progress: bool = True) -> Judgement:
    """:func:`judge` by running the cascade, which has a router, over the images of ``predictions``.

    Parameters
    ----------
    loader : (images float32 [B, C, H, W], labels int64 [B])

    Raises
    ------
    EmptyError
        The loader gave no batch.
    InvalidValueError
        As :func:`judge`.
    """
    cascade.reset_ledger()
    accuracy = evaluate(cascade, loader, progress=progress)
    return replace(judge(predictions, cascade.router), cascade=accuracy.top1, ledger=cascade.ledger)
