"""Confidence intervals of means, shares and paired differences over images.

Shape suffixes: N images, T differences.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

_BISECTIONS = 50  # halve an interval of length 1 below the resolution of float64 at 0.1
_QUANTILE = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A value measured on some images, with its 95 % interval over images like these.

    Attributes
    ----------
    value, low, high : as shares of 1

    Examples
    --------
    >>> from agflow.evaluation import Estimate
    >>> print(Estimate(0.5, 0.25, 0.75))
    50.0 % (25.0 to 75.0)
    """

    value: float
    low: float
    high: float

    @classmethod
    def of_mean(cls, values_N: np.ndarray) -> Estimate:
        """The mean of a number of each image, by the normal approximation."""
        mean, images = float(np.mean(values_N)), len(values_N)
        half = _QUANTILE * float(np.std(values_N, ddof=1)) / math.sqrt(images) if images > 1 else 2
        return cls(mean, mean - half, mean + half)

    @classmethod
    def of_share(cls, hits_N: np.ndarray) -> Estimate:
        """A share of the images: Wilson's score interval (1927)."""
        images, share = len(hits_N), float(np.mean(hits_N))
        squared = _QUANTILE**2 / images
        middle = (share + squared / 2) / (1 + squared)
        spread = share * (1 - share) * squared + squared**2 / 4
        half = math.sqrt(spread) / (1 + squared)
        return cls(share, max(0.0, middle - half), min(1.0, middle + half))

    @classmethod
    def of_difference(cls, hits_N: np.ndarray, others_N: np.ndarray) -> Estimate:
        """The share of hits minus that of others on the same images (:func:`paired_interval`)."""
        gained, lost = (int(np.sum(a & ~b)) for a, b in ((hits_N, others_N), (others_N, hits_N)))
        low, high = paired_interval(np.array([lost]), np.array([gained]), len(hits_N))
        return cls((gained - lost) / len(hits_N), float(low[0]), float(high[0]))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


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
    >>> import numpy as np
    >>> from agflow.evaluation.intervals import paired_interval
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
