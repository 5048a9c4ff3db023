"""The calibrated threshold of a cascade: what was asked for, what was shown, and on which images."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from agflow._core import arrow
from agflow._core.loader import core
from agflow.cascade.ensemble import BOTH, HEAVY
from agflow.cascade.ledger import Ledger
from agflow.cascade.predictions import Predictions
from agflow.cascade.priors import PriorQuality

TOLERANCE = 0.005


@dataclass(frozen=True)
class Router:
    """A calibrated threshold: an image escalates when its ``prior`` is below ``threshold``.

    ``answers`` says what answers it then: "heavy", or "both" experts, combined with ``light_weight`` (:func:`combine`).

    ``verdict`` is PASS when, with probability ``confidence`` over the draw of the held-out images, the ``target`` keeps
    its ``limit``:

    ========== =========================================
    accuracy   accuracy(cascade) >= accuracy(heavy) - limit
    charged    charged cost <= limit
    escalation escalation <= limit
    ========== =========================================

    ``bound`` is what was shown of it. FAIL: the rates seen break it; INSUFFICIENT DATA: about ``needed_samples`` images
    would do. Unless the verdict is PASS every image escalates (with a limit of cost or escalation: none) and the heavy
    expert alone answers. The other fields describe the held-out images at this threshold; ``point`` does so with
    intervals, ``ledger`` in MACs, and ``priors`` rates every prior there was.
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
    format: int = field(default=3, repr=False)

    @classmethod
    def _of(cls, text: str) -> Router:
        content = json.loads(text)
        content["ledger"] = Ledger(**content["ledger"])
        content["priors"] = tuple(PriorQuality(**quality) for quality in content["priors"] or ())
        return cls(**content)

    @property
    def tolerance(self) -> float:
        """The accuracy that may be lost; 1 where the limit is one of cost or escalation."""
        return self.limit if self.target == "accuracy" else 1.0

    @property
    def rule(self) -> str:
        """What escalates, in words."""
        if abs(self.threshold) >= 2.0**128:  # routing.EscalateAll and EscalateNone
            return "every image escalates" if self.threshold > 0 else "no image escalates"
        return f"an image escalates when its {self.prior} is below {self.threshold:.6g}"

    def save(self, path: str | os.PathLike) -> None:
        """Write the router as JSON, whole or not at all: the file that ``agflow route`` writes.

        Raises
        ------
        FileError
            The folder is missing or not writable, or the disk is full.
        """
        core().write_router(os.fspath(path), json.dumps(asdict(self)))

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


def calibrate_router(
    predictions: Predictions,
    *,
    prior: str | None = None,
    tolerance: float | None = None,
    charged: float | None = None,
    escalation: float | None = None,
    confidence: float = 0.95,
    ensemble: bool = False,
) -> Router:
    """Find the threshold that escalates least while the cascade keeps up with the heavy expert, or
    the most accurate one within a cost.

    What is asked for holds with probability ``confidence`` over the draw of the images behind
    ``predictions``. For ``tolerance`` every threshold is tested, from "all escalate" downwards until
    the first failure (fixed-sequence testing), by an exact unconditional test of the losses and
    gains, paired with the heavy expert alone (Tango 1998, Sidik 2003). For ``charged`` and
    ``escalation`` the thresholds are tested upwards by Clopper-Pearson limits of the escalation, and
    the most accurate that passed is taken; its accuracy is not guaranteed.

    Parameters
    ----------
    predictions : of held-out images that trained, tuned or repaired neither expert
        (:func:`agflow.predict`)
    prior : a prior of :class:`agflow.Predictions`, by default the maximum probability; ``"auto"``
        takes the one of the greatest AUROC for the light expert's errors among those that cost
        nothing. A quarter of the images chooses it and fits the temperature of scaled priors; the
        threshold is then calibrated on the other three quarters.
    tolerance : accepted loss of accuracy, as a share of the images; 0.005 if no limit is given
    charged : expected cost per image allowed, as a ratio of the heavy expert's (MACs)
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
    """
    if tolerance is charged is escalation is None:
        tolerance = TOLERANCE
    request = {
        "prior": prior or "",
        "answers": BOTH if ensemble else HEAVY,
        "tolerance": tolerance,
        "charged": charged,
        "escalation": escalation,
        "confidence": confidence,
    }
    found = arrow.call(core().calibrate_router, json.dumps(request), predictions.batch)
    return Router._of(found)
