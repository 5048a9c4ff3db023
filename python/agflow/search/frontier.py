"""The candidates that a search has evaluated, with their accuracies and costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from agflow.cascade.curves import curve
from agflow.cascade.ensemble import ENSEMBLE_ANSWERS, HEAVY_ANSWERS
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import Predictions
from agflow.cascade.verdict import Verdict
from agflow.search.candidates import Candidate
from agflow.table import Table

ACCURACY_ROUNDING = 1e-12  # accuracies are shares of whole images
PRUNED, SHORT, FULL = STAGES = ("pruned", "short", "full")
TABLE_HEADER = (
    "stage",
    "image size",
    "width",
    "branches",
    "shared blocks",
    "light cost",
    "light accuracy",
    "escalation",
    "expected cost",
    "images/s",
)


@dataclass(frozen=True)
class EvaluatedCandidate:
    """A candidate with the accuracy and the cost of its cascade on the choosing images.

    Attributes
    ----------
    stage : ``"pruned"``, ``"short"`` or ``"full"``: not trained, distilled shortly, distilled fully
    image_size : height and width in pixels, such as ``"112x112"``
    width : share of the heavy expert's MACs at that image size
    branches : number of residual branches that are left
    shared_blocks : first blocks that both experts share
    light : cost of an image of the light expert, as a ratio of the heavy one's
    light_accuracy : its top-1 accuracy, in [0, 1]
    threshold : of the maximum probability, below which an image escalates
    answers : what answers an escalated image: ``"heavy"`` or ``"ensemble"``
    escalation, accuracy, charged : of the cascade at this threshold; ``charged`` is the expected
        cost, light + escalation * (1 - shared) (:mod:`agflow.cascade.ledger`)
    images_per_second : of the cascade, by the times of both experts in batches of 32; 0 where costs
        are MACs
    oracle : expected cost if exactly the images escalated that the light expert loses against the
        heavy one

    Examples
    --------
    >>> import agflow
    >>> row = agflow.search.EvaluatedCandidate(
    ...     "pruned", "112x112", 1.0, 24, 0, 0.23, 0.7, 0.8, "heavy", 0.25, 0.79, 0.48, 0.0, 0.32
    ... )
    >>> row.charged == row.light + row.escalation
    True
    """

    stage: str
    image_size: str
    width: float
    branches: int
    shared_blocks: int
    light: float
    light_accuracy: float
    threshold: float
    answers: str
    escalation: float
    accuracy: float
    charged: float
    images_per_second: float
    oracle: float

    def __str__(self) -> str:
        speed = f", {self.images_per_second:.0f} images/s" if self.images_per_second else ""
        return (
            f"{self.stage:<6} {self.image_size:>9} px  width {self.width:.2f}  "
            f"{self.branches:>3} branches  {self.shared_blocks:>2} shared  "
            f"light {self.light:.3f}x {100 * self.light_accuracy:.1f} %  "
            f"escalates {100 * self.escalation:.1f} %: expected cost {self.charged:.3f}x{speed}"
        )

    @property
    def cells(self) -> tuple[str, ...]:
        """The columns of ``TABLE_HEADER`` as text."""
        return (
            self.stage,
            self.image_size,
            f"{self.width:.2f}",
            str(self.branches),
            str(self.shared_blocks),
            f"{self.light:.3f}x",
            f"{100 * self.light_accuracy:.1f} %",
            f"{100 * self.escalation:.1f} %",
            f"{self.charged:.3f}x",
            f"{self.images_per_second:.0f}" if self.images_per_second else "",
        )


class Frontier(Table):
    """All evaluated candidates, one row each, in the order of the search.

    The columns are the attributes of :class:`EvaluatedCandidate`. Metadata: ``agflow.cost_unit``,
    the unit of the costs ("MACs" or "ms"), ``agflow.heavy_accuracy``, ``agflow.tolerance``, the
    loss of accuracy that the search allowed, ``agflow.chosen``, the row of the design, and
    ``agflow.seed``.

    Examples
    --------
    See :func:`agflow.design_cascade`, which returns one.
    """

    kind = "frontier"

    @classmethod
    def of(cls, rows: list[EvaluatedCandidate], metadata: dict[str, str]) -> Frontier:
        """Make the table of evaluated candidates."""
        batch = pa.RecordBatch.from_pylist([asdict(row) for row in rows])
        return cls(batch.replace_schema_metadata({"agflow.kind": cls.kind, **metadata}))

    @property
    def rows(self) -> list[EvaluatedCandidate]:
        """The evaluated candidates."""
        return [EvaluatedCandidate(**row) for row in self.batch.to_pylist()]

    @property
    def chosen(self) -> EvaluatedCandidate:
        """The candidate of the design."""
        return self.rows[int(self.metadata["agflow.chosen"])]

    def __str__(self) -> str:
        return f"{self._outcome()}\n{self.listing}"

    @property
    def listing(self) -> str:
        """The rows of each stage, the cheapest first; an arrow marks the chosen one."""
        chosen, lines = self.chosen, [self._title()]
        for stage in STAGES:
            rows = sorted(
                (row for row in self.rows if row.stage == stage), key=lambda row: row.charged
            )
            lines += [f"{'->' if row == chosen else '  '} {row}" for row in rows]
        return "\n".join(lines)

    def _summary(self) -> str:
        chosen = " ".join(str(self.chosen).split())
        return f"{len(self)} evaluated candidates; chosen {chosen}"

    def _html_rows(self) -> tuple[Sequence, Iterable[Sequence]]:
        return TABLE_HEADER, (row.cells for row in self.rows)

    def markdown(self, counts: Verdict | None = None) -> str:
        """A Markdown page with all rows as a table.

        Parameters
        ----------
        counts : the verdict on the design on other images, which the page begins with; without one
            it begins with what the choosing images say
        """
        lines = [
            "# Evaluated cascades",
            "",
            f"**{counts or self._outcome()}**",
            "",
            self._title(),
            "",
            f"| {' | '.join(TABLE_HEADER)} |",
            "|" + "---|" * len(TABLE_HEADER),
        ]
        for row in self.rows:
            cells = list(row.cells)
            if row == self.chosen:
                cost = TABLE_HEADER.index("expected cost")
                cells[cost] = f"**{cells[cost]}**"
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines) + "\n"

    def _outcome(self) -> str:
        chosen = self.chosen
        count = "a gain" if chosen.charged < 1 else "a LOSS"
        return (
            f"Not guaranteed yet, and {count} on the choosing images: expected cost "
            f"{chosen.charged:.3f}x the heavy expert's"
        )

    def _title(self) -> str:
        heavy, tolerance = (
            100 * float(self.metadata[f"agflow.{name}"]) for name in ("heavy_accuracy", "tolerance")
        )
        return (
            f"Least expected cost per image in {self.metadata['agflow.cost_unit']}, as a ratio of "
            f"the heavy expert's, at its accuracy of {heavy:.1f} % less {tolerance:.2g} points on "
            "the choosing images; the threshold is still to be calibrated on other images"
        )


def evaluate_candidate(
    stage: str,
    candidate: Candidate,
    branches: int,
    predictions: Predictions,
    costs: CascadeCosts,
    *,
    tolerance: float,
    ensemble: bool,
    heavy_seconds: float = 0.0,
) -> EvaluatedCandidate:
    """Find the cheapest threshold at which a cascade is as accurate as its heavy expert.

    Every threshold is tried. There always is one: when all images escalate, the heavy expert
    answers.

    Parameters
    ----------
    branches : number of residual branches that the light expert has
    predictions : of the choosing images, with ``costs``
    costs : of one image, in MACs or in any other unit
    tolerance : accepted loss of accuracy, as a share of the images
    ensemble : also try the ensemble of both experts for images that escalate
    heavy_seconds : per image; 0 where nothing was timed
    """
    goal = predictions.heavy_accuracy - tolerance - ACCURACY_ROUNDING
    ways = [HEAVY_ANSWERS]
    if ensemble and "ensemble_prediction" in predictions.columns:
        ways.insert(0, ENSEMBLE_ANSWERS)
    points = {answers: _cheapest_point(predictions, goal, answers) for answers in ways}
    points = {answers: point for answers, point in points.items() if point is not None}
    answers = min(points, key=lambda answers: points[answers]["charged"])
    light = costs.light / costs.heavy
    lost = max(0.0, predictions.heavy_accuracy - predictions.light_accuracy)
    charged = points[answers]["charged"]
    return EvaluatedCandidate(
        stage=stage,
        image_size="x".join(map(str, candidate.image_size)),
        width=candidate.width,
        branches=branches,
        shared_blocks=candidate.shared_blocks,
        light=light,
        light_accuracy=predictions.light_accuracy,
        answers=answers,
        **points[answers],
        images_per_second=1 / (charged * heavy_seconds) if heavy_seconds else 0.0,
        oracle=light + lost * (1 - costs.shared / costs.heavy),
    )


def _cheapest_point(predictions: Predictions, goal: float, answers: str) -> dict[str, float] | None:
    """The point of least escalation that reaches an accuracy; None where no point does."""
    ensemble = answers == ENSEMBLE_ANSWERS
    points = curve(predictions, points=len(predictions) + 1, ensemble=ensemble).columns
    reached = np.flatnonzero(points["accuracy"] >= goal)
    if not len(reached):
        return None
    names = ("threshold", "escalation", "accuracy", "charged")
    return {name: float(points[name][reached[0]]) for name in names}
