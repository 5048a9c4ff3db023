"""The ensemble of both experts: averaged log-probabilities."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from agflow._core import arrow
from agflow._core.loader import core
from agflow.cascade.priors import are_classes, label_batch, matrix_on_cpu
from agflow.errors import EmptyError

if TYPE_CHECKING:
    import torch

HEAVY_ANSWERS, ENSEMBLE_ANSWERS = "heavy", "ensemble"
"""What answers an image that escalates, as files name it: the heavy expert, or the ensemble."""


def combine(light_EK: torch.Tensor, heavy_EK: torch.Tensor, weight: float) -> torch.Tensor:
    """Average the log-probabilities of both experts: ``w log p_light + (1 - w) log p_heavy``.

    A product of experts (Hinton 2002, Neural Computation 14, 1771-1800), computed in float64; the
    result is log-probabilities up to a constant of each row.

    Parameters
    ----------
    light_EK, heavy_EK : logits of both experts, float32, float64, float16 or bfloat16
    weight : w, the light expert's, from 0 (the heavy expert's answer alone) to 1

    Returns
    -------
    float32 [E, K] on the device of ``heavy_EK``

    Raises
    ------
    ShapeError
        The two are of different images or classes.
    NonFiniteError
        A logit is NaN or infinite.
    InvalidValueError
        The weight is not in [0, 1].

    Examples
    --------
    >>> import agflow, torch
    >>> light_EK, heavy_EK = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    >>> [int(agflow.cascade.combine(light_EK, heavy_EK, w).argmax()) for w in (0.0, 0.5, 1.0)]
    [1, 1, 0]
    """
    import torch  # logits are tensors here: routing on arrays needs none

    combined_EK = combined_logits(light_EK, heavy_EK, weight)
    return torch.from_numpy(combined_EK.copy()).to(heavy_EK.device)


def combined_logits(
    light_EK: torch.Tensor | np.ndarray, heavy_EK: torch.Tensor | np.ndarray, weight: float
) -> np.ndarray:
    """Compute what :func:`combine` returns as a numpy array, float32 [E, K]."""
    combined = arrow.call_for_array(
        core().combine, float(weight), matrix_on_cpu(light_EK), matrix_on_cpu(heavy_EK)
    )
    return combined.to_numpy().reshape(tuple(heavy_EK.shape))


def fit_light_weight(
    light_NK: torch.Tensor | np.ndarray,
    heavy_NK: torch.Tensor | np.ndarray,
    labels_N: torch.Tensor | np.ndarray,
) -> float | None:
    """Fit the weight of :func:`combine` that maximises the likelihood of the labels.

    The fit uses a quarter of the rows, which calibrates no threshold.

    Parameters
    ----------
    light_NK, heavy_NK : logits, float [N, K], tensors or numpy arrays
    labels_N : int64 [N]

    Returns
    -------
    None when no row is left for the fit, the experts have different classes, or a label is no class
    of theirs

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.

    Examples
    --------
    >>> import agflow, torch
    >>> labels_N = torch.arange(400) % 4
    >>> right_NK = torch.nn.functional.one_hot(labels_N, 4).float()
    >>> agflow.cascade.fit_light_weight(-right_NK, right_NK, labels_N)
    0.0
    """
    if light_NK.shape != heavy_NK.shape or not are_classes(labels_N, light_NK):
        return None
    try:
        found = arrow.call(
            core().fit_light_weight,
            arrow.matrix(light_NK),
            arrow.matrix(heavy_NK),
            label_batch(labels_N),
        )
    except EmptyError:
        return None
    return float(json.loads(found)["light_weight"])
