"""The answer of both experts together: averaged log-probabilities."""

from __future__ import annotations

import json

import torch

from agflow._core import arrow
from agflow._core.loader import core
from agflow.cascade.priors import are_classes, label_batch, matrix_on_cpu
from agflow.errors import EmptyError

HEAVY, BOTH = "heavy", "both"


def combine(light_EK: torch.Tensor, heavy_EK: torch.Tensor, weight: float) -> torch.Tensor:
    """Answers to images that both experts have seen: ``w log softmax(light) + (1 - w) log softmax(heavy)``.

    A product of experts (Hinton 2002, Neural Computation 14, 1771-1800), made in float64: log-probabilities up to a
    constant of each row.

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
        The two are of other images or classes.
    NonFiniteError
        A logit is NaN or infinite.
    InvalidValueError
        The weight is not in [0, 1].
    """
    combined = arrow.call_for_array(
        core().combine, float(weight), matrix_on_cpu(light_EK), matrix_on_cpu(heavy_EK)
    )
    return torch.from_numpy(combined.to_numpy().copy()).view(heavy_EK.shape).to(heavy_EK.device)


def fit_light_weight(
    light_NK: torch.Tensor, heavy_NK: torch.Tensor, labels_N: torch.Tensor
) -> float | None:
    """The weight of :func:`combine` of greatest likelihood, on the quarter of the rows that calibrates no threshold.

    None when no row is left for it, the experts have other classes, or a label is no class of theirs.

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
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
