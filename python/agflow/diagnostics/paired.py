"""The difference between a cascade's accuracy and the heavy expert's on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from agflow.cascade.predictions import Predictions
    from agflow.cascade.router import Router


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
