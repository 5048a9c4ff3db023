"""What shrinking a model reports: sizes, accuracy on held-out images, speed, and the next step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from agflow.calibration.loss import FEATURES, SELF
from agflow.evaluation.agreement import Agreement
from agflow.evaluation.timing import Ratios, Timing
from agflow.pruning.planning import Plan

DENSE, LIGHT = "dense", "light"


@dataclass(frozen=True)
class ShrinkReport:
    """Record of a call of :func:`agflow.shrink`.

    Attributes
    ----------
    name : of the model
    plan : that it was pruned by
    params, dense_params : parameters of the light model and of the dense one
    calibration, held_out : images that calibrated and repaired, and images that did neither
    seconds : to calibrate, plan, prune and repair
    timings : of both models by their names, ``"dense"`` and ``"light"``, in turns
    classes : of the model; 0 without a classifier
    accuracy, dense_accuracy : top-1 on the held-out images in [0, 1]; None without labels or
        without a classifier
    agreement : share of the held-out images on which the light model answers as the dense one; None
        without a classifier
    features : how the features of a model without a classifier agree; None of others
    loss : whose gradients were measured: ``"labels"``, ``"self"``, ``"features"`` or a function
    tuning : sketch (:func:`agflow.data.sketch_images`) of the images that calibrated
    """

    name: str
    plan: Plan = field(repr=False)
    params: int
    dense_params: int
    calibration: int
    held_out: int
    seconds: float
    timings: Mapping[str, Timing]
    classes: int = 0
    accuracy: float | None = None
    dense_accuracy: float | None = None
    agreement: float | None = None
    features: Agreement | None = None
    loss: str = "labels"
    tuning: str = field(repr=False, default="")

    @property
    def speedup(self) -> Ratios:
        """How many times as many images a second the light model answers, round by round."""
        return self.timings[DENSE].over(self.timings[LIGHT])

    def text(self, next_step: str) -> str:
        """The report as lines: the result first, what to do next last."""
        share = self.params / self.dense_params
        lines = [
            f"{self.name}: {self.plan.macs_share:.3f}x of its MACs "
            f"({self.plan.macs / 1e6:.1f} M of {self.plan.model_macs / 1e6:.1f} M), "
            f"{share:.3f}x of its parameters",
            self._quality(),
            self._speed(),
            f"made in {self.seconds:.1f} s from {self.calibration} other images, "
            f"by the loss {self.loss}{self._reason()}",
            f"next: {next_step}",
        ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return {
            "name": self.name,
            "macs": self.plan.macs,
            "dense_macs": self.plan.model_macs,
            "params": self.params,
            "dense_params": self.dense_params,
            "images": {"calibration": self.calibration, "held_out": self.held_out},
            "accuracy": self.accuracy,
            "dense_accuracy": self.dense_accuracy,
            "agreement": self.agreement,
            "features": None if self.features is None else asdict(self.features),
            "loss": self.loss,
            "seconds": self.seconds,
            "images_per_second": {
                name: timing.images_per_second for name, timing in self.timings.items()
            },
            "speedup": self.speedup._asdict(),
        }

    def _reason(self) -> str:
        """Why the loss is not that of the labels, where the images or the model decide it."""
        if not self.classes and self.loss == FEATURES:
            return " (the model has no classifier)"
        unlabelled = self.accuracy is None and self.loss == SELF
        return " (the images have no labels)" if unlabelled else ""

    def _quality(self) -> str:
        if self.features is not None:
            return f"{self.features}".replace("images", "held-out images")
        assert self.agreement is not None  # of a classifier
        agrees = f"as the dense model on {100 * self.agreement:.1f} %"
        if self.accuracy is None or self.dense_accuracy is None:
            return f"answers {agrees} of {self.held_out} held-out images, which have no labels"
        line = (
            f"accuracy {100 * self.accuracy:.1f} %, dense {100 * self.dense_accuracy:.1f} %, on "
            f"{self.held_out} held-out images; answers {agrees} of them"
        )
        if self.dense_accuracy < 2 / self.classes:
            line += (
                "\nwarning: the dense model is hardly better than chance here: are the labels "
                "numbers of its own classes, and the images normalised as in its training?"
            )
        return line

    def _speed(self) -> str:
        dense, light = (self.timings[name].images_per_second for name in (DENSE, LIGHT))
        ratio = self.speedup
        line = (
            f"speed {light:,.0f} images/s, dense {dense:,.0f}: {ratio.median:.2f}x "
            f"({ratio.min:.2f}x to {ratio.max:.2f}x)"
        )
        if ratio.min <= 1 <= ratio.max:
            return f"{line}, too noisy to tell which is faster"
        return line if ratio.min > 1 else f"{line}, SLOWER although it has fewer MACs"

    def __str__(self) -> str:
        labelled = ", on labelled images" if self.classes else ""
        return self.text(
            "agflow.finetune(light, images, held_out=others, "
            f"distillation=agflow.training.Distillation(dense)){labelled}"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
