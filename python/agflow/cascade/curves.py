"""Accuracy and expected cost of a cascade over all thresholds of a prior."""

from __future__ import annotations

import json

from agflow._core import arrow
from agflow._core.loader import core
from agflow.cascade.ensemble import BOTH, HEAVY
from agflow.cascade.predictions import Predictions
from agflow.table import Table


class Curve(Table):
    """Accuracy and cost over the thresholds of a prior.

    Columns: threshold, escalated, and escalation, accuracy, charged, uncharged, random_accuracy, each with the ends of
    its interval of 95 % confidence, ``NAME_low`` and ``NAME_high`` (Wilson's, for one threshold, not for all at once).
    ``charged`` and ``uncharged`` are MACs per image as ratios of the heavy expert; ``uncharged`` leaves the light pass of
    escalated images unpaid and is there for comparison with papers that report it. What the prior itself costs is charged
    to the light expert. The answers to escalated images are those of the heavy expert, or of both where metadata
    agflow.answers says so.
    """

    kind = "curve"


def curve(
    predictions: Predictions, *, prior: str | None = None, points: int = 200, ensemble: bool = False
) -> Curve:
    """The exact accuracy and cost at every threshold of a prior, by default the maximum probability, thinned to at most
    ``points`` rows evenly in escalation. ``ensemble``: both experts answer an image that escalates (:func:`combine`)."""
    request = {"prior": prior or "", "answers": BOTH if ensemble else HEAVY, "points": points}
    return Curve(arrow.call_for_batch(core().curve, json.dumps(request), predictions.batch))


def oracle(predictions: Predictions, *, ensemble: bool = False) -> dict[str, float | list[float]]:
    """The cascade that no router beats: what the light expert gets wrong and escalating puts right escalates, nothing else.

    Parameters
    ----------
    ensemble : both experts answer an image that escalates (:func:`combine`)

    Returns
    -------
    accuracy, escalation, charged, uncharged and more, with the ends of their intervals, as ``Router.point`` has them; no
    threshold does this, that of the point is 0
    """
    return json.loads(arrow.call(core().oracle, BOTH if ensemble else HEAVY, predictions.batch))
