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
from agflow.cascade.verdict import Verdict


@dataclass(frozen=True, repr=False)
class RouterEvaluation:
    """Top-1 accuracies of a cascade and of its experts on test images, and the cascade's cost.

    All intervals, (low, high), are of 95 % confidence, each by itself.

    Attributes
    ----------
    images : number of test images
    light, heavy, cascade : top-1 accuracies, in [0, 1]
    light_interval, heavy_interval, cascade_interval : Wilson's, of these accuracies
    lost, gained : numbers of images that the heavy expert gets right and the cascade does not, and
        the other way round
    difference, difference_interval : accuracy(cascade) - accuracy(heavy) = (gained - lost) /
        images; the interval is that of paired proportions (Tango 1998)
    random : accuracy of random routing at the same escalation, with its interval,
        ``random_low`` to ``random_high``
    ledger : the cost
    counts : the verdict on both counts

    Examples
    --------
    See :func:`agflow.evaluate_router`.
    """

    images: int
    light: float
    heavy: float
    cascade: float
    light_interval: tuple[float, float]
    heavy_interval: tuple[float, float]
    cascade_interval: tuple[float, float]
    lost: int
    gained: int
    difference: float
    difference_interval: tuple[float, float]
    random: float
    random_low: float
    random_high: float
    ledger: Ledger
    counts: Verdict

    @property
    def figures(self) -> str:
        """Accuracies and escalation in one line, as ``str`` shows them below the verdict."""
        return (
            f"cascade {100 * self.cascade:.2f} %, heavy {100 * self.heavy:.2f} %: "
            f"{self.difference_text}; light {100 * self.light:.2f} %; "
            f"{100 * self.ledger.escalation:.1f} % escalated; "
            f"random routing {100 * self.random:.2f} % "
            f"({100 * self.random_low:.2f} to {100 * self.random_high:.2f} %)"
        )

    @property
    def difference_text(self) -> str:
        """The difference to the heavy expert in words, with its interval."""
        low, high = self.difference_interval
        return f"{100 * self.difference:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f})"

    def __str__(self) -> str:
        return f"{self.counts}\n{self.images} test images: {self.figures}"

    def __repr__(self) -> str:
        return f"<agflow.RouterEvaluation: {self.counts}; {self.images} images, {self.figures}>"

    def _repr_html_(self) -> str:
        return facts_html(
            self.counts.line,
            {
                "meaning": self.counts.meaning,
                "test images": str(self.images),
                "cascade": f"{percent_text(self.cascade, self.cascade_interval)}, "
                f"{100 * self.ledger.escalation:.1f} % escalated",
                "heavy expert": percent_text(self.heavy, self.heavy_interval),
                "light expert": percent_text(self.light, self.light_interval),
                "random routing": percent_text(self.random, (self.random_low, self.random_high)),
                "against the heavy expert": f"{self.difference_text}: {self.lost} images lost, "
                f"{self.gained} gained",
                "next": self.counts.cure or "deploy it (agflow.Cascade, agflow.save)",
            },
        )


def percent_text(share: float, interval: tuple[float, float]) -> str:
    """A share with its interval, in per cent."""
    low, high = interval
    return f"{100 * share:.2f} % ({100 * low:.2f} to {100 * high:.2f})"


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
        light_interval=tuple(found["light_interval"]),
        heavy_interval=tuple(found["heavy_interval"]),
        cascade_interval=tuple(point["accuracy_interval"]),
        lost=found["lost"],
        gained=found["gained"],
        difference=found["difference"]["observed"],
        difference_interval=tuple(found["difference"]["interval"]),
        random=point["random_accuracy"],
        random_low=point["random_interval"][0],
        random_high=point["random_interval"][1],
        ledger=Ledger(**found["ledger"]),
        counts=Verdict(**found["counts"]),
    )
