"""How well each prior predicts the light expert's errors."""

from __future__ import annotations

import json
from dataclasses import dataclass

from agflow._core import arrow
from agflow._core.loader import core
from agflow.cascade.predictions import Predictions


@dataclass(frozen=True)
class PriorQuality:
    """How well a prior separates the images that the light expert gets right from its errors.

    Attributes
    ----------
    prior : its name
    auroc : area under the ROC curve, ties count half
    low, high : ends of its interval of 95 % confidence
    errors : number of images that the light expert gets wrong

    Examples
    --------
    >>> import agflow
    >>> agflow.cascade.PriorQuality("margin", auroc=0.9, low=0.87, high=0.93, errors=120).auroc
    0.9
    """

    prior: str
    auroc: float
    low: float
    high: float
    errors: int


def rank_priors(predictions: Predictions) -> tuple[PriorQuality, ...]:
    """Measure how well every prior predicts the light expert's errors, in the priors' order.

    Examples
    --------
    >>> import agflow, torch
    >>> light, heavy = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    >>> costs, labels = agflow.cascade.CascadeCosts(light=1, heavy=4), torch.arange(50) % 4
    >>> predictions = agflow.cascade.join_predictions(light, heavy, labels, costs)
    >>> agflow.cascade.rank_priors(predictions)[0].prior
    'max_probability'
    """
    found = json.loads(arrow.call(core().rank, Predictions.of_any(predictions).batch))
    return tuple(PriorQuality(**quality) for quality in found)
