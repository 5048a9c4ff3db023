"""Priors: what the light expert's logits say about its confidence, and how well that predicts its errors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import EmptyError

if TYPE_CHECKING:
    from agflow.cascade.predictions import Predictions

PRIOR = "max_probability"
LOGIT_PRIORS = (PRIOR, "margin", "entropy", "energy")
SCALED = "_scaled"
AGREEMENT = "agreement"


@dataclass(frozen=True)
class PriorQuality:
    """How well a prior tells the light expert's errors: AUROC (ties count half) with its interval of 95 % confidence."""

    prior: str
    auroc: float
    low: float
    high: float
    errors: int


def priors(
    logits_NK: torch.Tensor, temperature: float = 1.0
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Answer and priors of every row, from the logits over a temperature.

    Returns
    -------
    prediction : int64 [N]
    priors : float32 [N] each, by the names of ``LOGIT_PRIORS``, made in float64

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    InvalidValueError
        The temperature is not above 0.
    """
    table = arrow.call_for_batch(core().priors, temperature, arrow.matrix(logits_NK))
    return table.column("prediction").to_numpy(), {
        name: table.column(name).to_numpy() for name in LOGIT_PRIORS
    }


def fit_temperature(logits_NK: torch.Tensor, labels_N: torch.Tensor) -> float | None:
    """The temperature of greatest likelihood, on the quarter of the rows that calibrates no threshold.

    None when no row is left for it, or a label is no class of the logits.

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    """
    if not are_classes(labels_N, logits_NK):
        return None
    try:
        return json.loads(
            arrow.call(core().fit_temperature, arrow.matrix(logits_NK), label_batch(labels_N))
        )["temperature"]
    except EmptyError:
        return None


def agreement(first_NK: torch.Tensor, second_NK: torch.Tensor) -> np.ndarray:
    """The prior of a second look, float32 [N] in [0, 1]: the sum over the classes of the lesser of the two probabilities,
    which is 1 less their total variation distance, from the logits of both looks.

    Raises
    ------
    ShapeError
        The two are of other images or classes.
    NonFiniteError
        A logit is NaN or infinite.
    """
    return arrow.call_for_array(
        core().agreement, matrix_on_cpu(first_NK), matrix_on_cpu(second_NK)
    ).to_numpy()


def matrix_on_cpu(logits_BK: torch.Tensor) -> arrow.Matrix:
    return arrow.matrix(logits_BK.contiguous().cpu())


def are_classes(labels_N: torch.Tensor, logits_NK: torch.Tensor) -> bool:
    return len(labels_N) > 0 and labels_N.min() >= 0 and labels_N.max() < logits_NK.shape[1]


def label_batch(labels_N: torch.Tensor) -> pa.RecordBatch:
    return pa.record_batch({"label": labels_N.numpy().astype(np.int64)})


def escalations(
    logits_BK: torch.Tensor, threshold: float, *, prior: str = PRIOR, temperature: float = 1.0
) -> torch.Tensor:
    """Indices of the rows whose prior is below ``threshold``, ascending int64, on the logits' device.

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    InvalidValueError
        Logits do not give this prior.
    """
    onto_cpu = logits_BK.float().contiguous().cpu()
    indices = arrow.call_for_array(
        core().route, prior, float(temperature), float(threshold), arrow.matrix(onto_cpu)
    )
    return torch.from_numpy(indices.to_numpy(zero_copy_only=False).copy()).to(logits_BK.device)


def rank(predictions: Predictions) -> tuple[PriorQuality, ...]:
    """How well every prior tells the light expert's errors, in the order of the predictions' priors."""
    return tuple(
        PriorQuality(**quality)
        for quality in json.loads(arrow.call(core().rank, predictions.batch))
    )
