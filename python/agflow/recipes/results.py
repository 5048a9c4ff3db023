"""Options and result of the run recipe: the pipeline fills them, the report reads them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from agflow._utils.computing import Computing
from agflow._utils.defaults import default
from agflow.cascade.curves import Curve
from agflow.cascade.ledger import Ledger
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router
from agflow.data.datasets import Dataset
from agflow.evaluation.accuracy import Accuracy
from agflow.evaluation.timing import Timing
from agflow.pruning.planning import Plan
from agflow.pruning.scoring import Scores

if TYPE_CHECKING:
    import pandas

SLOWER = (
    "FAILURE: the light expert is slower than the heavy one on this machine, whatever its MACs: "
    "plan with a greater round_to or with latency_ms (agflow bench layers)."
)


@dataclass(frozen=True)
class RunOptions:
    """Options of :func:`agflow.recipes.run`; the command's flags have the same names.

    Attributes
    ----------
    data : images that calibrate, train and set the threshold, ``limit`` of them
    eval : test images, which are used for nothing else, ``eval_limit`` of them
    macs, pruning_ratio : the budget of the light expert, one of the two (:func:`agflow.plan`)
    lr : peak learning rate of the fine-tuning
    tolerance, confidence : accuracy that the cascade may lose, and the probability with which it
        does not lose more (:func:`agflow.calibrate_router`)
    label, image_column, class_map : :class:`agflow.data.DataOptions`
    mean, std : of the images' channels, where they are not known of the model
    device, dtype : where the models compute, and in which precision: float32 or bfloat16
    workers : processes that decode images
    force : repeat a run that is finished, and replace another run's files in the default output
    """

    model: str = default("common", "model")
    weights: str | None = None
    data: str = default("common", "data")
    eval: str = default("common", "test_data")
    output: str = default("run", "output")
    macs: str | None = None
    pruning_ratio: float | None = None
    criterion: str = default("score", "criterion")
    round_to: int = default("plan", "round_to")
    groups: tuple[str, ...] = default("calibrate", "groups")
    ignored_layers: tuple[str, ...] = ()
    compensate: str = default("run", "compensate")
    batches: int = default("calibrate", "batches")
    batch_size: int = default("common", "batch_size")
    epochs: int = default("run", "epochs")
    lr: float = default("run", "lr")
    limit: int | None = None
    eval_limit: int | None = None
    tolerance: float = default("route", "tolerance")
    confidence: float = default("route", "confidence")
    seed: int = default("common", "seed")
    label: str | None = None
    image_column: str | None = None
    class_map: str | None = None
    mean: tuple[str, ...] = ()
    std: tuple[str, ...] = ()
    device: str = default("common", "device")
    dtype: str = default("common", "dtype")
    workers: int = default("common", "workers")
    force: bool = False

    @property
    def computing(self) -> Computing:
        """Where the models compute, and in which precision."""
        return Computing(self.device, self.dtype)


@dataclass(frozen=True)
class Stages:
    """Accuracies of one criterion's light expert after pruning, repair and fine-tuning.

    Attributes
    ----------
    epochs : of the fine-tuning before ``tuned``, the same for criterion and control; the light
        expert itself may be trained for longer
    """

    cut: Accuracy
    repaired: Accuracy
    tuned: Accuracy
    epochs: int


@dataclass(frozen=True)
class CascadeResult:
    """A cascade on test images, over one set of classes.

    Attributes
    ----------
    light, heavy, cascade : top-1 accuracies in [0, 1]
    random : expected accuracy of random routing at the same escalation
    """

    router: Router
    ledger: Ledger
    light: float
    heavy: float
    cascade: float
    random: float
    curve: Curve = field(repr=False)


class ResultRow(TypedDict):
    """Figures of one way to answer the test images, see :attr:`RunResult.rows`."""

    name: str
    accuracy: float
    escalation: float
    charged: float
    images_per_second: float | None


@dataclass(frozen=True, repr=False)
class RunResult:
    """The outcome of :func:`agflow.recipes.run`.

    Attributes
    ----------
    name : of the model
    classes : number of the model's classes
    images : number of images by use
    fingerprint : digest of the calibration images
    dense : accuracy of the heavy expert
    stages : accuracies by criterion, of the one asked for and of the random control
    test : the images of ``predictions``
    cascade : over all classes
    cascade_among_present : both experts restricted to the classes that occur; None where all do
    timings : of heavy, light and cascade on this machine
    """

    options: RunOptions
    name: str
    classes: int
    images: dict[str, int]
    fingerprint: str
    dense: Accuracy
    stages: dict[str, Stages]
    scores: Scores
    plan: Plan
    test: Dataset
    predictions: Predictions
    cascade: CascadeResult
    cascade_among_present: CascadeResult | None
    timings: dict[str, Timing]

    @property
    def slower(self) -> bool:
        """Whether the light expert's fastest round is slower than the heavy expert's slowest."""
        return self.timings["light"].spread[1] < self.timings["heavy"].spread[0]

    @property
    def rows(self) -> list[ResultRow]:
        """Heavy expert, light expert, cascade and random routing, each as a row of figures.

        ``escalation`` is the share of the images that the heavy expert sees; ``charged`` the
        expected MACs per image as a ratio of the heavy expert's, all passes paid.
        """
        found, ledger = self.cascade, self.cascade.ledger
        light = ledger.light_cost / ledger.heavy_cost
        figures = [
            ("heavy", found.heavy, 1.0, 1.0),
            ("light", found.light, 0.0, light),
            ("cascade", found.cascade, ledger.escalation, ledger.charged),
            ("random routing", found.random, ledger.escalation, ledger.charged),
        ]
        return [
            ResultRow(
                name=name,
                accuracy=accuracy,
                escalation=escalation,
                charged=charged,
                images_per_second=self._speed(name),
            )
            for name, accuracy, escalation, charged in figures
        ]

    def _speed(self, name: str) -> float | None:
        return self.timings[name].images_per_second if name in self.timings else None

    def to_pandas(self) -> pandas.DataFrame:
        """:attr:`rows` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows)

    @property
    def summary(self) -> str:
        """The outcome in a few lines, for a terminal."""
        cascade, ledger = self.cascade, self.cascade.ledger
        last = self.stages[self.options.criterion]
        heavy = self.timings["heavy"].images_per_second
        speeds = (
            f"{name} {t.images_per_second:.0f} ({t.images_per_second / heavy:.2f}x)"
            for name, t in self.timings.items()
        )
        lines = [
            f"light expert   {_percent(cascade.light)}  "
            f"{ledger.light_cost / ledger.heavy_cost:.3f}x MACs  "
            f"(pruned {100 * last.cut.top1:.1f}, repaired {100 * last.repaired.top1:.1f})",
            f"heavy expert   {_percent(cascade.heavy)}  1.000x MACs",
            f"cascade        {_percent(cascade.cascade)}  {ledger.charged:.3f}x MACs charged, "
            f"{ledger.uncharged:.3f}x uncharged, {100 * ledger.escalation:.1f} % escalated: "
            f"{ledger.verdict}",
            f"random routing {_percent(cascade.random)}  at the same cost",
            f"threshold      {cascade.router.rule}: {cascade.router.verdict}",
            "images/s       " + ", ".join(speeds) + f", {self.options.computing}",
            *([SLOWER] if self.slower else []),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        found, ledger = self.cascade, self.cascade.ledger
        return (
            f"<agflow.recipes.RunResult {self.options.output}: cascade {100 * found.cascade:.1f} % "
            f"(heavy {100 * found.heavy:.1f} %, light {100 * found.light:.1f} %) at "
            f"{ledger.charged:.3f}x charged>"
        )

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{row['name']}</td><td>{100 * row['accuracy']:.1f}</td>"
            f"<td>{100 * row['escalation']:.1f}</td><td>{row['charged']:.3f}x</td>"
            f"<td>{'' if (speed := row['images_per_second']) is None else f'{speed:.0f}'}</td></tr>"
            for row in self.rows
        )
        return (
            f"<b>{self.name}</b>, {self.cascade.router.rule}: {self.cascade.router.verdict}"
            "<table><tr><th></th><th>accuracy %</th><th>escalated %</th><th>MACs charged</th>"
            f"<th>images/s</th></tr>{cells}</table>"
        )


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"
