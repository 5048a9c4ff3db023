"""The calibrated threshold of a cascade, with the evidence behind it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.request import request_json
from agflow._utils.defaults import default
from agflow.cascade.ensemble import ENSEMBLE_ANSWERS, HEAVY_ANSWERS
from agflow.cascade.ledger import Ledger
from agflow.cascade.markup import facts_html
from agflow.cascade.predictions import Predictions
from agflow.cascade.prior_quality import PriorQuality
from agflow.cascade.verdict import Verdict

DEFAULT_TOLERANCE = default("route", "tolerance")
ESCALATES_ALL = 2.0**128
"""Thresholds from here on are above every float32 prior, their negatives below (core/routing)."""


@dataclass(frozen=True, repr=False)
class Router:
    """A calibrated threshold: an image escalates when its ``prior`` is below ``threshold``.

    Attributes
    ----------
    prior, temperature : the prior, and the temperature of its logits where it is a scaled one
    answers : what answers an escalated image: ``"heavy"``, the heavy expert, or ``"ensemble"``, the
        ensemble of both experts with ``light_weight`` (:func:`agflow.cascade.combine`)
    threshold : of the prior
    verdict : ``"PASS"`` when, with probability ``confidence`` over the draw of the held-out
        images, the ``target`` keeps its ``limit``; ``"FAIL"`` when the observed rates break the
        limit; ``"INSUFFICIENT DATA"`` when about ``needed_samples`` images could show it. Unless it
        is PASS every image escalates (with a limit of cost or escalation: none does) and the heavy
        expert alone answers
    target, limit :
        ========== =======================================================
        accuracy   accuracy(cascade) >= accuracy(heavy) - limit
        charged    expected cost per image (:mod:`agflow.cascade.ledger`) <= limit
        escalation escalation <= limit
        ========== =======================================================
    bound : the confidence limit of the target, which the verdict compares with ``limit``
    samples, escalation, accuracy_light, accuracy_heavy, accuracy_cascade : of the held-out images
        at this threshold; ``point`` has them with intervals, ``ledger`` the cost with its unit
    priors : how well every recorded prior predicts the light expert's errors

    Examples
    --------
    >>> import agflow, torch
    >>> labels_N = torch.arange(900) % 3
    >>> right_NK = torch.nn.functional.one_hot(labels_N, 3).float()
    >>> noise_NK = torch.randn(900, 3, generator=torch.Generator().manual_seed(0))
    >>> predictions = agflow.cascade.join_predictions(
    ...     3 * right_NK + noise_NK, 9 * right_NK, labels_N, agflow.cascade.CascadeCosts(20, 100)
    ... )
    >>> router = agflow.calibrate_router(predictions, tolerance=0.05)
    >>> router.verdict, router.target, router.limit
    ('PASS', 'accuracy', 0.05)
    >>> print(router.counts)
    PASS and a gain: 0.200x the heavy expert's MACs per image
    """

    prior: str
    temperature: float
    answers: str
    light_weight: float
    threshold: float
    verdict: str
    target: str
    limit: float
    confidence: float
    bound: float
    samples: int
    needed_samples: int
    escalation: float
    accuracy_light: float
    accuracy_heavy: float
    accuracy_cascade: float
    point: dict[str, float | list[float]] = field(repr=False)
    ledger: Ledger = field(repr=False)
    priors: tuple[PriorQuality, ...] = field(repr=False)
    format: int = field(default=4, repr=False)

    @classmethod
    def _of(cls, text: str) -> Router:
        content = json.loads(text)
        content["ledger"] = Ledger(**content["ledger"])
        content["priors"] = tuple(PriorQuality(**quality) for quality in content["priors"])
        return cls(**content)

    @property
    def tolerance(self) -> float:
        """Accepted loss of accuracy; 1 where the limit is one of cost or escalation."""
        return self.limit if self.target == "accuracy" else 1.0

    @property
    def rule(self) -> str:
        """The condition on which an image escalates, in words."""
        return escalation_rule(self.prior, self.threshold)

    @property
    def counts(self) -> Verdict:
        """The verdict on both counts, of which ``verdict`` is one: on guarantee and on cost."""
        return Verdict.of(self)

    def save(self, path: str | os.PathLike) -> None:
        """Write the router as JSON, the file that ``agflow route`` writes, whole or not at all.

        Raises
        ------
        FileError
            The folder is missing or not writable, or the disk is full.
        """
        core().write_router(os.fspath(path), request_json(asdict(self)))

    @classmethod
    def load(cls, path: str | os.PathLike) -> Router:
        """Read a router written by :meth:`save` or by ``agflow route``.

        Raises
        ------
        FileError
            The file is missing or not readable.
        CorruptFileError
            It is not a router file of this format.
        """
        return cls._of(core().read_router(os.fspath(path)))

    def __repr__(self) -> str:
        return (
            f"<agflow.Router: {self.counts}; {self.rule}, {100 * self.escalation:.1f} % escalated>"
        )

    def _repr_html_(self) -> str:
        expert = "heavy expert" if self.answers == HEAVY_ANSWERS else "ensemble"
        counts = self.counts
        return facts_html(
            counts.line,
            {
                "meaning": counts.meaning,
                "rule": f"{self.rule}; the {expert} answers it",
                "target": f"{self.target}, limit {self.limit:g} at confidence {self.confidence:g}: "
                f"bound {self.bound:.4g}",
                "expected cost per image": f"{self.ledger.charged:.3f}x of the heavy expert's, "
                f"{100 * self.escalation:.1f} % escalated",
                "accuracy": f"cascade {100 * self.accuracy_cascade:.2f} %, "
                f"heavy {100 * self.accuracy_heavy:.2f} %, light {100 * self.accuracy_light:.2f} %",
                "held-out images": str(self.samples),
                "next": counts.cure or "evaluate it on test images (agflow.evaluate_router)",
            },
        )


def escalation_rule(prior: str, threshold: float) -> str:
    """The condition on which an image escalates, in words."""
    if abs(threshold) >= ESCALATES_ALL:
        return "every image escalates" if threshold > 0 else "no image escalates"
    return f"an image escalates when its {prior} is below {threshold:.6g}"


def calibrate_router(
    predictions: Predictions,
    *,
    prior: str | None = None,
    tolerance: float | None = None,
    charged: float | None = None,
    escalation: float | None = None,
    confidence: float = default("route", "confidence"),
    ensemble: bool = default("route", "ensemble"),
) -> Router:
    """Calibrate the threshold of a cascade on held-out images.

    With a ``tolerance`` it is the threshold that escalates least while the cascade is as accurate
    as the heavy expert, less the tolerance; with a limit of cost or escalation it is the most
    accurate one within the limit. The limit holds with probability ``confidence`` over the draw of
    the images.

    For ``tolerance`` every threshold is tested, from "all escalate" downwards until the first
    failure (fixed-sequence testing), by an exact unconditional test of the losses and gains, paired
    with the heavy expert alone (Tango 1998, Sidik 2003). For ``charged`` and ``escalation`` the
    thresholds are tested upwards by Clopper-Pearson limits of the escalation, and the most accurate
    that passed is taken; its accuracy is not guaranteed.

    Parameters
    ----------
    predictions : of held-out images that trained, tuned or repaired neither expert
        (:func:`agflow.predict`)
    prior : a prior of :class:`agflow.Predictions`, by default the maximum probability; ``"auto"``
        takes the one of the greatest AUROC for the light expert's errors among those that cost
        nothing. A quarter of the images chooses it and fits the temperature of scaled priors; the
        threshold is then calibrated on the other three quarters.
    tolerance : accepted loss of accuracy, as a share of the images; 0.005 if no limit is given
    charged : expected cost per image allowed, as a ratio of the heavy expert's
    escalation : share of the images that may escalate
    confidence : in (0, 1)
    ensemble : an image that escalates is answered by both experts, by averaging their
        log-probabilities (:func:`agflow.cascade.combine`) with the weight that a quarter of the
        images fits; the other three quarters calibrate the threshold. Where no threshold passes the
        router falls back to the heavy expert's answer.

    Raises
    ------
    InvalidValueError
        A limit or the confidence is out of range, several limits are given, there is no such prior,
        the predictions hold no ensemble, or a held-out image is known to have tuned an expert.
    BudgetError
        The light expert alone costs more than ``charged``.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> heavy, preprocessing, _ = agflow.load_model("example")
    >>> light = agflow.models.at_image_size(heavy, 20)
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=128)
    >>> predictions = agflow.predict(light, heavy, DataLoader(images, 64))
    >>> router = agflow.calibrate_router(predictions, escalation=0.5)
    >>> router.verdict, router.escalation < 0.5
    ('PASS', True)
    """
    if tolerance is charged is escalation is None:
        tolerance = DEFAULT_TOLERANCE
    batch = Predictions.of_any(predictions).batch
    request = {
        "prior": prior or "",
        "answers": ENSEMBLE_ANSWERS if ensemble else HEAVY_ANSWERS,
        "tolerance": tolerance,
        "charged": charged,
        "escalation": escalation,
        "confidence": confidence,
    }
    found = arrow.call(core().calibrate_router, request_json(request), batch)
    return Router._of(found)
