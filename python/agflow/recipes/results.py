"""Options and result of the run recipe: the pipeline fills them, the report reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, TypedDict

from agflow._utils.computing import Computing
from agflow._utils.defaults import default
from agflow.cascade.curves import Curve
from agflow.cascade.expert_costs import MEASURED
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router
from agflow.cascade.router_evaluation import RouterEvaluation, percent_text
from agflow.cascade.verdict import Verdict
from agflow.data.datasets import Dataset
from agflow.errors import InvalidValueError
from agflow.evaluation.accuracy import Accuracy
from agflow.evaluation.timing import LOSS, Timing
from agflow.pruning.planning import Plan
from agflow.pruning.scoring import Scores

if TYPE_CHECKING:
    import pandas

COSTS = ("macs", MEASURED)
"""How a run may find the costs of its experts."""
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
    loss : whose gradients are measured, ``"labels"`` or ``"self"`` (:func:`agflow.calibrate`)
    lr : peak learning rate of the fine-tuning
    tolerance, confidence : accuracy that the cascade may lose, and the probability with which it
        does not lose more (:func:`agflow.calibrate_router`)
    costs : of both experts: ``"macs"``, or ``"measured"``, in ms by the first batch of the images
        that set the threshold
    label, image_column, class_map : :class:`agflow.data.DataOptions`
    mean, std : of the images' channels, where they are not known of the model
    crop, crop_mode, interpolation : of the images, in place of what is known of the model
        (:func:`agflow.load_model`)
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
    loss: str = default("calibrate", "loss")
    ignored_layers: tuple[str, ...] = ()
    compensate: str = default("run", "compensate")
    batches: int = default("calibrate", "batches")
    batch_size: int = default("common", "batch_size")
    epochs: int = default("run", "epochs")
    lr: float = default("run", "lr")
    limit: int | None = None
    eval_limit: int | None = None
    tolerance: float = default("run", "tolerance")
    confidence: float = default("route", "confidence")
    costs: str = default("predict", "costs")
    seed: int = default("common", "seed")
    label: str | None = None
    image_column: str | None = None
    class_map: str | None = None
    mean: tuple[str, ...] = ()
    std: tuple[str, ...] = ()
    crop: float | None = None
    crop_mode: str | None = None
    interpolation: str | None = None
    device: str = default("common", "device")
    dtype: str = default("common", "dtype")
    workers: int = default("common", "workers")
    force: bool = default("common", "force")

    def __post_init__(self):
        if self.costs not in COSTS:  # refused before the training rather than after it
            raise InvalidValueError(f"costs is {self.costs!r}, expected {' or '.join(COSTS)}")

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
    """A cascade over one set of classes.

    Attributes
    ----------
    evaluation : on the test images
    curve : over all thresholds, of the test images
    """

    router: Router
    evaluation: RouterEvaluation
    curve: Curve = field(repr=False)


class ResultRow(TypedDict):
    """Figures of one way to answer the test images, see :attr:`RunResult.rows`."""

    name: str
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    escalation: float
    charged: float
    images_per_second: float | None


def verdict_of(
    router: Router, evaluation: RouterEvaluation, timings: Mapping[str, Timing]
) -> Verdict:
    """The verdict on a cascade that was evaluated, and timed beside its heavy expert."""
    return Verdict.of(router, evaluation, timings["cascade"].speed_over(timings["heavy"]))


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
        """Whether the light expert is clearly slower than the heavy one."""
        return self.timings["light"].speed_over(self.timings["heavy"]).finding == LOSS

    @property
    def counts(self) -> Verdict:
        """The verdict on both counts, of the test images and by the clock."""
        return verdict_of(self.cascade.router, self.cascade.evaluation, self.timings)

    @property
    def next(self) -> str:
        """What to do about the cascade, or with it."""
        folder = self.options.output
        return self.counts.next(
            f"serve it: agflow serve --cascade {folder}, in Python agflow.load('{folder}'); "
            f"{folder}/report.md has it all"
        )

    @property
    def rows(self) -> list[ResultRow]:
        """Heavy expert, light expert, cascade and random routing, each as a row of figures.

        ``accuracy_low`` and ``accuracy_high`` are the ends of its 95 % confidence interval;
        ``escalation`` is the share of the images that the heavy expert sees; ``charged`` the
        expected cost per image as a ratio of the heavy expert's, all passes paid.
        """
        found, ledger = self.cascade.evaluation, self.cascade.evaluation.ledger
        light = ledger.light_cost / ledger.heavy_cost
        routed, random = (ledger.escalation, ledger.charged), (found.random_low, found.random_high)
        figures = [
            ("heavy", found.heavy, found.heavy_interval, 1.0, 1.0),
            ("light", found.light, found.light_interval, 0.0, light),
            ("cascade", found.cascade, found.cascade_interval, *routed),
            ("random routing", found.random, random, *routed),
        ]
        return [
            ResultRow(
                name=name,
                accuracy=accuracy,
                accuracy_low=interval[0],
                accuracy_high=interval[1],
                escalation=escalation,
                charged=charged,
                images_per_second=self._speed(name),
            )
            for name, accuracy, interval, escalation, charged in figures
        ]

    def _speed(self, name: str) -> float | None:
        return self.timings[name].images_per_second if name in self.timings else None

    def to_pandas(self) -> pandas.DataFrame:
        """:attr:`rows` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows)

    @property
    def summary(self) -> str:
        """The outcome in a few lines for a terminal: verdict first, what to do next last."""
        counts, router = self.counts, self.cascade.router
        cascade, ledger = self.cascade.evaluation, self.cascade.evaluation.ledger
        last, unit = self.stages[self.options.criterion], ledger.cost_unit
        speeds = (
            f"{name} {timing.images_per_second:.0f} "
            f"({timing.speed_over(self.timings['heavy']).speed:.2f}x)"
            for name, timing in self.timings.items()
        )
        lines = [
            counts.line,
            f"{self.options.output}: {counts.meaning}",
            f"light expert   {_percent(cascade.light)}  "
            f"{ledger.light_cost / ledger.heavy_cost:.3f}x {unit}  "
            f"(pruned {100 * last.cut.top1:.1f}, repaired {100 * last.repaired.top1:.1f})",
            f"heavy expert   {_percent(cascade.heavy)}  1.000x {unit}",
            f"cascade        {_percent(cascade.cascade)}  {ledger.charged:.3f}x {unit}, "
            f"{100 * ledger.escalation:.1f} % escalated; {cascade.difference_text} against the "
            f"heavy expert on {cascade.images} test images (95 % interval)",
            f"random routing {_percent(cascade.random)}  at the same cost",
            f"threshold      {router.rule}",
            "images/s       " + ", ".join(speeds) + f", {self.options.computing}",
            *([SLOWER] if self.slower else []),
            self.next,
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        found = self.cascade.evaluation
        return (
            f"<agflow.recipes.RunResult {self.options.output}: {self.counts}; cascade "
            f"{100 * found.cascade:.1f} %, heavy {100 * found.heavy:.1f} %, "
            f"light {100 * found.light:.1f} %>"
        )

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><td>{row['name']}</td><td>{_accuracy_cell(row)}</td>"
            f"<td>{100 * row['escalation']:.1f}</td><td>{row['charged']:.3f}x</td>"
            f"<td>{'' if (speed := row['images_per_second']) is None else f'{speed:.0f}'}</td></tr>"
            for row in self.rows
        )
        counts = self.counts
        about = f"{self.options.output}, {self.name}: {counts.meaning}; {self.cascade.router.rule}"
        return (
            f"<b>{escape(counts.line)}</b><br>{escape(about)}"
            "<table><tr><th></th><th>accuracy %</th><th>escalated %</th><th>expected cost</th>"
            f"<th>images/s</th></tr>{cells}</table>{escape(self.next)}"
        )


def _accuracy_cell(row: ResultRow) -> str:
    return percent_text(row["accuracy"], (row["accuracy_low"], row["accuracy_high"]))


def _percent(share: float) -> str:
    return f"{100 * share:5.1f} %"
