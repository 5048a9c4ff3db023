"""The difference between a cascade's accuracy and the heavy expert's on the same images."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from agflow.cascade.predictions import Predictions
    from agflow.cascade.router import Router

_BISECTIONS = 50  # halve an interval of length 1 below the resolution of float64 at 0.1


def paired_counts(
    predictions: Predictions, router: Router, escalated_T: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Count the images that the heavy expert alone, and those that the cascade alone gets right.

    Parameters
    ----------
    router : its prior orders the images and its answers are the final ones of those that escalate
    escalated_T : numbers of images that escalate, those of the lowest prior; int64 [T]

    Returns
    -------
    lost, gained : int64 [T] each

    Examples
    --------
    >>> import agflow, torch
    >>> from agflow.cascade import CascadeCosts, join_predictions
    >>> light, heavy = torch.eye(4)[[0, 1, 1, 1]], torch.eye(4)[[0, 0, 1, 3]]
    >>> predictions = join_predictions(light, heavy, torch.tensor([0, 1, 2, 3]), CascadeCosts(1, 4))
    >>> router = agflow.calibrate_router(predictions, tolerance=0.5, confidence=0.5)
    >>> [counts.tolist() for counts in paired_counts(predictions, router, np.array([0, 4]))]
    [[1, 0], [1, 0]]
    """
    columns, label_N = predictions.columns, predictions.columns["label"]
    light_N, heavy_N, final_N = (
        columns[f"{expert}_prediction"] == label_N for expert in ("light", "heavy", router.answers)
    )
    order_N = np.argsort(predictions.prior(router.prior), kind="stable")

    def count(light_alone_N: np.ndarray, escalated_N: np.ndarray) -> np.ndarray:
        changes_N = escalated_N[order_N].astype(int) - light_alone_N[order_N]
        return light_alone_N.sum() + np.concatenate([[0], np.cumsum(changes_N)])[escalated_T]

    lost_T = count(heavy_N & ~light_N, heavy_N & ~final_N)
    return lost_T, count(~heavy_N & light_N, ~heavy_N & final_N)


def paired_interval(
    lost_T: np.ndarray, gained_T: np.ndarray, images: int, *, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence interval of a difference of paired proportions, P(gained) - P(lost).

    It is Tango's score interval (1998, Statistics in Medicine 17, 891-908): it holds every
    difference whose score, taken at the most likely rates that have this difference, is at most the
    normal quantile.

    Returns
    -------
    low, high : float64 [T] each, in [-1, 1]

    Examples
    --------
    >>> low, high = paired_interval(np.array([3]), np.array([9]), 100)
    >>> print(f"{low[0]:.4f} to {high[0]:.4f}")
    -0.0091 to 0.1377
    """
    quantile = NormalDist().inv_cdf((1 + confidence) / 2)
    observed_T = (gained_T - lost_T) / images

    def holds(at_T: np.ndarray) -> np.ndarray:
        b_T = (2 * images + lost_T - gained_T) * at_T - lost_T - gained_T
        root_T = np.sqrt(np.maximum(b_T**2 + 8 * images * lost_T * at_T * (1 - at_T), 0))
        loss_T = (root_T - b_T) / (4 * images)
        variance_T = np.maximum((2 * loss_T + at_T * (1 - at_T)) / images, 0)
        return np.abs(observed_T - at_T) <= quantile * np.sqrt(variance_T)

    def end(outside: float) -> np.ndarray:
        within_T, outside_T = observed_T, np.full_like(observed_T, outside)
        for _ in range(_BISECTIONS):
            middle_T = (within_T + outside_T) / 2
            held_T = holds(middle_T)
            within_T = np.where(held_T, middle_T, within_T)
            outside_T = np.where(held_T, outside_T, middle_T)
        return within_T

    return end(-1.0), end(1.0)
