"""Is a prior of 0.9 right nine times in ten? Reliability of a prior that is a probability."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agflow.errors import InvalidValueError


@dataclass(frozen=True)
class Reliability:
    """Images by the value of a prior.

    Attributes
    ----------
    edges : float64 [bins + 1], of equal width over [0, 1]; a bin has its upper edge, the first one both
    counts : int64 [bins]
    confidence, accuracy : float64 [bins], mean of the prior and share of right answers; NaN where a bin is empty
    ece : expected calibration error, Σ counts/N · |accuracy - confidence| (Naeini et al. 2015; Guo et al., arXiv 1706.04599)
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


def reliability(predictions, *, prior: str = "max_probability", bins: int = 10) -> Reliability:
    """Compare a prior of the light expert with how often it is right.

    Parameters
    ----------
    predictions : agflow.Predictions
    bins : at least 1

    Raises
    ------
    InvalidValueError
        There is no such prior, its values are not all in [0, 1], or there are fewer than 1 bins.
    """
    values_N = predictions.prior(prior).astype(np.float64)
    if not ((values_N >= 0) & (values_N <= 1)).all():
        raise InvalidValueError(
            f"prior {prior!r} runs from {values_N.min():.3g} to {values_N.max():.3g}, expected probabilities: take max_probability"
        )
    if bins < 1:
        raise InvalidValueError(f"bins is {bins}, expected at least 1")
    right_N = predictions.columns["light_prediction"] == predictions.columns["label"]
    bin_N = np.clip(np.ceil(values_N * bins).astype(int) - 1, 0, bins - 1)
    counts, confidence, accuracy = (
        np.bincount(bin_N, weights, bins) for weights in (None, values_N, right_N)
    )
    with np.errstate(invalid="ignore"):
        confidence, accuracy = confidence / counts, accuracy / counts
    ece = float(np.nansum(counts * np.abs(accuracy - confidence)) / len(values_N))
    return Reliability(np.linspace(0, 1, bins + 1), counts, confidence, accuracy, ece)
