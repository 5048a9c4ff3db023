"""Priors: the light expert's confidence, by its logits.

Shape suffixes: N images, B images of a batch, K classes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import EmptyError

if TYPE_CHECKING:
    import torch

MAX_PROBABILITY = "max_probability"
LOGIT_PRIORS = (MAX_PROBABILITY, "margin", "entropy", "energy")
AGREEMENT = "agreement"
SCALED_SUFFIX = "_scaled"


def priors(
    logits_NK: torch.Tensor | np.ndarray,
    temperature: float = 1.0,
    *,
    expert: str = "light expert",
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Compute the predicted class and the priors of every row of logits over a temperature.

    Parameters
    ----------
    expert : whose logits they are, for errors

    Returns
    -------
    prediction : int64 [N]
    priors : float32 [N] each, by the names of ``LOGIT_PRIORS``, computed in float64

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    InvalidValueError
        The temperature is not above 0.
    """
    table = arrow.call_for_batch(core().priors, expert, temperature, arrow.matrix(logits_NK))
    return table.column("prediction").to_numpy(), {
        name: table.column(name).to_numpy() for name in LOGIT_PRIORS
    }


def fit_temperature(
    logits_NK: torch.Tensor | np.ndarray, labels_N: torch.Tensor | np.ndarray
) -> float | None:
    """Fit the temperature that maximises the likelihood of the labels.

    Temperature scaling (Guo et al. 2017, arXiv 1706.04599) on a quarter of the rows, which
    calibrates no threshold.

    Parameters
    ----------
    logits_NK : float [N, K], a tensor or a numpy array
    labels_N : int64 [N]

    Returns
    -------
    None when no row is left for the fit, or a label is no class of the logits

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.

    Examples
    --------
    >>> import agflow, torch
    >>> logits_NK = 4 * torch.randn(4000, 10, generator=torch.Generator().manual_seed(0))
    >>> labels_N = logits_NK.argmax(1)
    >>> agflow.cascade.fit_temperature(logits_NK, labels_N) < 1  # these logits are underconfident
    True
    """
    if not are_classes(labels_N, logits_NK):
        return None
    try:
        return json.loads(
            arrow.call(core().fit_temperature, arrow.matrix(logits_NK), label_batch(labels_N))
        )["temperature"]
    except EmptyError:
        return None


def agreement(
    first_NK: torch.Tensor | np.ndarray, second_NK: torch.Tensor | np.ndarray
) -> np.ndarray:
    """Compute the prior of a second view: the overlap of two predicted distributions.

    The sum over the classes of the lesser of the two probabilities, which is 1 minus their total
    variation distance.

    Parameters
    ----------
    first_NK, second_NK : logits of both views

    Returns
    -------
    float32 [N] in [0, 1]

    Raises
    ------
    ShapeError
        The two are of different images or classes.
    NonFiniteError
        A logit is NaN or infinite.

    Examples
    --------
    >>> import agflow, torch
    >>> logits_NK = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    >>> agflow.cascade.agreement(logits_NK, logits_NK)
    array([1., 1.], dtype=float32)
    """
    return arrow.call_for_array(
        core().agreement, matrix_on_cpu(first_NK), matrix_on_cpu(second_NK)
    ).to_numpy()


def escalations(
    logits_BK: torch.Tensor,
    threshold: float,
    *,
    prior: str = MAX_PROBABILITY,
    temperature: float = 1.0,
) -> torch.Tensor:
    """Find the rows whose prior is below ``threshold``.

    Parameters
    ----------
    logits_BK : of the light expert, any floating dtype
    prior : one of ``LOGIT_PRIORS``, or one with ``_scaled`` behind it, which divides the logits by
        ``temperature``

    Returns
    -------
    indices, ascending int64, on the logits' device

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    InvalidValueError
        Logits do not give this prior.

    Examples
    --------
    >>> import agflow, torch
    >>> logits_BK = torch.tensor([[5.0, 0.0], [0.1, 0.0]])
    >>> agflow.cascade.escalations(logits_BK, threshold=0.9)
    tensor([1])
    """
    import torch  # logits are tensors here: routing on arrays needs none

    onto_cpu = logits_BK.float().contiguous().cpu()
    indices = arrow.call_for_array(
        core().route, prior, float(temperature), float(threshold), arrow.matrix(onto_cpu)
    )
    return torch.from_numpy(indices.to_numpy(zero_copy_only=False).copy()).to(logits_BK.device)


def matrix_on_cpu(logits_BK: torch.Tensor | np.ndarray) -> arrow.Matrix:
    """Logits of any device and stride as the core takes them."""
    if isinstance(logits_BK, np.ndarray):
        return arrow.matrix(np.ascontiguousarray(logits_BK))
    return arrow.matrix(logits_BK.contiguous().cpu())


def are_classes(labels_N: torch.Tensor | np.ndarray, logits_NK: torch.Tensor | np.ndarray) -> bool:
    """Whether there are labels and all of them are columns of the logits."""
    if len(labels_N) == 0:
        return False
    return int(labels_N.min()) >= 0 and int(labels_N.max()) < logits_NK.shape[1]


def label_batch(labels_N: torch.Tensor | np.ndarray) -> pa.RecordBatch:
    """Labels as the core takes them."""
    return pa.record_batch({"label": np.asarray(labels_N).astype(np.int64)})
