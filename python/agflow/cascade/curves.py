"""Accuracy and expected cost of a cascade over all thresholds of a prior."""

from __future__ import annotations

import json

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.request import request_json
from agflow._utils.defaults import default
from agflow.cascade.ensemble import ENSEMBLE_ANSWERS, HEAVY_ANSWERS
from agflow.cascade.predictions import Predictions
from agflow.table import Table


class Curve(Table):
    """Accuracy and cost of a cascade at the thresholds of a prior, ascending in escalation.

    Columns: threshold, escalated, and escalation, accuracy, charged, uncharged, random_accuracy,
    each with the ends of its interval of 95 % confidence, ``NAME_low`` and ``NAME_high`` (Wilson's,
    for one threshold, not for all at once). ``charged`` and ``uncharged`` are defined in
    :mod:`agflow.cascade.ledger`; the cost of a prior is part of the light expert's. Escalated
    images are answered by the heavy expert, or by the ensemble where metadata agflow.answers is
    "ensemble".
    """

    kind = "curve"

    def _summary(self) -> str:
        ends = f", {self._at(0)} to {self._at(-1)} expected cost" if len(self) else ""
        return f"{len(self)} thresholds{ends}"

    def _at(self, row: int) -> str:
        return f"{100 * self['accuracy'][row]:.1f} % at {self['charged'][row]:.3f}x"


def curve(
    predictions: Predictions,
    *,
    prior: str | None = None,
    points: int = default("route", "points"),
    ensemble: bool = default("route", "ensemble"),
) -> Curve:
    """Compute the exact accuracy and cost of a cascade at every threshold of a prior.

    Parameters
    ----------
    prior : by default the maximum probability
    points : the curve is thinned to at most so many rows, evenly in escalation
    ensemble : escalated images are answered by the ensemble of both experts
        (:func:`agflow.cascade.combine`)

    Raises
    ------
    InvalidValueError
        There is no such prior, ``points`` is too small, or the predictions hold no ensemble.

    Examples
    --------
    >>> import agflow, torch
    >>> labels_N = torch.arange(300) % 3
    >>> right_NK = torch.nn.functional.one_hot(labels_N, 3).float()
    >>> noise_NK = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    >>> predictions = agflow.cascade.join_predictions(
    ...     right_NK + noise_NK, 9 * right_NK, labels_N, agflow.cascade.CascadeCosts(20, 100)
    ... )
    >>> found = agflow.cascade.curve(predictions, points=10)
    >>> [round(float(found["charged"][row]), 3) for row in (0, -1)]
    [0.2, 1.2]
    """
    request = {
        "prior": prior or "",
        "answers": ENSEMBLE_ANSWERS if ensemble else HEAVY_ANSWERS,
        "points": points,
    }
    batch = Predictions.of_any(predictions).batch
    return Curve(arrow.call_for_batch(core().curve, request_json(request), batch))


def oracle(
    predictions: Predictions, *, ensemble: bool = default("route", "ensemble")
) -> dict[str, float | list[float]]:
    """Compute accuracy and cost of the best possible routing.

    Exactly the images that the light expert gets wrong and escalation puts right escalate. No
    threshold does this; that of the result is 0.

    Parameters
    ----------
    ensemble : escalated images are answered by the ensemble of both experts
        (:func:`agflow.cascade.combine`)

    Returns
    -------
    accuracy, escalation, charged, uncharged and more, with the ends of their intervals, as
    ``Router.point`` has them

    Raises
    ------
    InvalidValueError
        The predictions hold no ensemble.

    Examples
    --------
    >>> import agflow, torch
    >>> labels_N = torch.arange(4)
    >>> light_NK = torch.eye(4)[[0, 1, 2, 0]]  # the last image is wrong
    >>> predictions = agflow.cascade.join_predictions(
    ...     light_NK, torch.eye(4), labels_N, agflow.cascade.CascadeCosts(20, 100)
    ... )
    >>> best = agflow.cascade.oracle(predictions)
    >>> best["accuracy"], best["escalation"]
    (1, 0.25)
    """
    answers = ENSEMBLE_ANSWERS if ensemble else HEAVY_ANSWERS
    return json.loads(arrow.call(core().oracle, answers, Predictions.of_any(predictions).batch))
