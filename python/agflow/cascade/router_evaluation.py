"""Evaluation of a calibrated router on test images, beside random routing of as many images."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.request import request_json
from agflow.cascade.ledger import Ledger
from agflow.cascade.markup import facts_html
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router


@dataclass(frozen=True, repr=False)
class RouterEvaluation:
    """Top-1 accuracies of a cascade and of its experts on test images, and the cascade's cost.

    Attributes
    ----------
    images : number of test images
    light, heavy, cascade : top-1 accuracies, in [0, 1]
    lost, gained : numbers of images that the heavy expert gets right and the cascade does not, and
        the other way round
    random : accuracy of random routing at the same escalation, with its interval of 95 %
        confidence, ``random_low`` to ``random_high``
    ledger : the cost

    Examples
    --------
    See :func:`agflow.evaluate_router`.
    """

    images: int
    light: float
    heavy: float
    cascade: float
    lost: int
    gained: int
    random: float
    random_low: float
    random_high: float
    ledger: Ledger

    def __str__(self) -> str:
        return (
            f"{100 * self.cascade:.2f} % (heavy {100 * self.heavy:.2f} %, "
            f"light {100 * self.light:.2f} %) at {self.ledger.charged:.3f}x charged, "
            f"{100 * self.ledger.escalation:.1f} % escalated; "
            f"random routing {100 * self.random:.2f} % "
            f"({100 * self.random_low:.2f} to {100 * self.random_high:.2f} %)"
        )

    def __repr__(self) -> str:
        return f"<agflow.RouterEvaluation: {self.images} images, {self}>"

    def _repr_html_(self) -> str:
        return facts_html(
            f"Cascade on {self.images} test images",
            {
                "cascade": f"{100 * self.cascade:.2f} % at {self.ledger.charged:.3f}x charged, "
                f"{100 * self.ledger.escalation:.1f} % escalated",
                "heavy expert": f"{100 * self.heavy:.2f} %",
                "light expert": f"{100 * self.light:.2f} %",
                "random routing": f"{100 * self.random:.2f} % "
                f"({100 * self.random_low:.2f} to {100 * self.random_high:.2f} %)",
                "against the heavy expert": f"{self.lost} images lost, {self.gained} gained",
            },
        )


def evaluate_router(predictions: Predictions, router: Router) -> RouterEvaluation:
    """Evaluate a calibrated router on logged predictions.

    Parameters
    ----------
    predictions : of test images, which trained, chose and calibrated no part of the cascade, made
        with the router's temperature and light weight (``agflow.predict(..., router=router)``)

    Raises
    ------
    InvalidValueError
        The predictions lack the router's prior, have it at another temperature, hold the ensemble
        at another light weight, or share images with those that tuned an expert.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader, Subset
    >>> heavy, preprocessing, _ = agflow.load_model("example")
    >>> light = agflow.models.at_image_size(heavy, 20)
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=192)
    >>> held_out, test = (
    ...     DataLoader(Subset(images, part), 64) for part in (range(128), range(128, 192))
    ... )
    >>> router = agflow.calibrate_router(agflow.predict(light, heavy, held_out), escalation=0.5)
    >>> found = agflow.evaluate_router(agflow.predict(light, heavy, test, router=router), router)
    >>> found.images, found.light < found.cascade
    (64, True)
    """
    predictions = Predictions.of_any(predictions)
    found = json.loads(
        arrow.call(core().evaluate_router, request_json(asdict(router)), predictions.batch)
    )
    point = found["point"]
    return RouterEvaluation(
        images=len(predictions),
        light=found["light_accuracy"],
        heavy=found["heavy_accuracy"],
        cascade=point["accuracy"],
        lost=found["lost"],
        gained=found["gained"],
        random=point["random_accuracy"],
        random_low=point["random_interval"][0],
        random_high=point["random_interval"][1],
        ledger=Ledger(**found["ledger"]),
    )
