"""Reliability of a prior that is a probability: is a prior of 0.9 right nine times in ten?"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agflow.errors import InvalidValueError

if TYPE_CHECKING:
    from agflow.cascade.predictions import Predictions


@dataclass(frozen=True, repr=False)
class Reliability:
    """Images by the value of a prior (see :func:`reliability`).

    Attributes
    ----------
    edges : float64 [bins + 1], of equal width over [0, 1]; a bin contains its upper edge, the first
        one both
    counts : int64 [bins], images
    confidence, accuracy : float64 [bins], mean of the prior and share of correct predictions; NaN
        where a bin is empty
    ece : expected calibration error, Σ counts/N · |accuracy - confidence| (Naeini et al. 2015; Guo
        et al., arXiv 1706.04599)
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float

    def to_pandas(self):
        """Return a pandas DataFrame with one row a bin; needs pandas."""
        return pa.table(
            {
                "above": self.edges[:-1],
                "to": self.edges[1:],
                "images": self.counts,
                "confidence": self.confidence,
                "accuracy": self.accuracy,
            }
        ).to_pandas()

    def __repr__(self) -> str:
        return (
            f"<agflow.diagnostics.Reliability: expected calibration error {self.ece:.3f} over "
            f"{int(self.counts.sum())} images in {len(self.counts)} bins>"
        )

    def __str__(self) -> str:
        columns = self.edges[:-1], self.edges[1:], self.counts, self.confidence, self.accuracy
        return "\n".join(
            [
                f"{'prior':<11} {'images':>7} {'mean':>6} {'correct':>7}",
                *(
                    f"{low:.2f} - {high:.2f} {images:7.0f} {confidence:6.3f} {accuracy:7.3f}"
                    for low, high, images, confidence, accuracy in zip(*columns, strict=True)
                ),
                f"expected calibration error {self.ece:.3f}",
            ]
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def reliability(
    predictions: Predictions, *, prior: str = "max_probability", bins: int = 10
) -> Reliability:
    """Compare a prior of the light expert with how often its prediction is correct.

    Parameters
    ----------
    predictions : of :func:`agflow.predict`
    prior : one that is a probability
    bins : at least 1

    Raises
    ------
    InvalidValueError
        There is no such prior, its values are not all in [0, 1], or there are fewer than 1 bins.

    Examples
    --------
    >>> import agflow
    >>> from agflow.diagnostics import reliability
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:test", preprocessing=preprocessing, limit=64)
    >>> predictions = agflow.predict(model, model, DataLoader(images, batch_size=32))
    >>> found = reliability(predictions, bins=5)
    >>> int(found.counts.sum()), len(found.edges)
    (64, 6)
    """
    values_N = predictions.prior(prior).astype(np.float64)
    if not ((values_N >= 0) & (values_N <= 1)).all():
        raise InvalidValueError(
            f"prior {prior!r} runs from {values_N.min():.3g} to {values_N.max():.3g}, "
            "expected probabilities: take max_probability"
        )
    if bins < 1:
        raise InvalidValueError(f"bins is {bins}, expected at least 1")
    correct_N = predictions.columns["light_prediction"] == predictions.columns["label"]
    bin_N = np.clip(np.ceil(values_N * bins).astype(int) - 1, 0, bins - 1)
    counts, confidence, accuracy = (
        np.bincount(bin_N, weights, bins) for weights in (None, values_N, correct_N)
    )
    with np.errstate(invalid="ignore"):
        confidence, accuracy = confidence / counts, accuracy / counts
    ece = float(np.nansum(counts * np.abs(accuracy - confidence)) / len(values_N))
    return Reliability(np.linspace(0, 1, bins + 1), counts, confidence, accuracy, ece)
