"""A router on images that chose neither weights nor threshold, beside random routing at the same escalation."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from agflow._core import arrow
from agflow._core.loader import core
from agflow.cascade.cascade import Cascade
from agflow.cascade.ledger import Ledger
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router
from agflow.evaluation.accuracy import evaluate


@dataclass(frozen=True)
class RouterEvaluation:
    """Top-1 accuracies of a cascade and its experts, and what the cascade cost.

    Attributes
    ----------
    lost, gained : images that the heavy expert gets right and the cascade does not, and the other way round
    random : what random routing at the same escalation gets, with its interval of 95 % confidence, ``random_low`` to ``random_high``
    """

    images: int
    light: float
    heavy: float
    cascade: float
    lost: int
    gained: int
    random: float
    random_low: float
    random_high: float
    ledger: Ledger

    def __str__(self) -> str:
        return (
            f"{100 * self.cascade:.2f} % (heavy {100 * self.heavy:.2f} %, light {100 * self.light:.2f} %) at {self.ledger.charged:.3f}x charged, "
            f"{100 * self.ledger.escalation:.1f} % escalated; random routing {100 * self.random:.2f} % "
            f"({100 * self.random_low:.2f} to {100 * self.random_high:.2f} %)"
        )


def evaluate_router(predictions: Predictions, router: Router) -> RouterEvaluation:
    """What ``router`` makes of predictions that have been logged.

    Parameters
    ----------
    predictions : of images that chose nothing of the cascade, made with the router's temperature and light_weight

    Raises
    ------
    InvalidValueError
        The predictions lack the router's prior, have it at another temperature, combine both answers by another weight, or
        share images with those that tuned an expert.
    """
    found = json.loads(
        arrow.call(core().evaluate_router, json.dumps(asdict(router)), predictions.batch)
    )
    point = found["point"]
    return RouterEvaluation(
        images=len(predictions),
        light=found["light_accuracy"],
        heavy=found["heavy_accuracy"],
        cascade=point["accuracy"],
        lost=found["lost"],
        gained=found["gained"],
        random=point["random_accuracy"],
        random_low=point["random_interval"][0],
        random_high=point["random_interval"][1],
        ledger=Ledger(**found["ledger"]),
    )


def evaluate_cascade(
    cascade: Cascade, loader: Iterable, predictions: Predictions
) -> RouterEvaluation:
    """:func:`evaluate_router` by running the cascade, which has a router, over the images of ``predictions``.

    Parameters
    ----------
    loader : (images float32 [B, C, H, W], labels int64 [B])

    Raises
    ------
    EmptyError
        The loader gave no batch.
    InvalidValueError
        As :func:`evaluate_router`.
    """
    cascade.reset_ledger()
    accuracy = evaluate(cascade, loader)
    return replace(
        evaluate_router(predictions, cascade.router), cascade=accuracy.top1, ledger=cascade.ledger
    )
