"""What a search for a cascade has judged, candidate by candidate."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import torch

from agflow.cascade.curves import curve
from agflow.cascade.ensemble import BOTH, HEAVY
from agflow.cascade.ledger import Costs
from agflow.cascade.predictions import join_predictions
from agflow.search.candidates import Candidate
from agflow.table import Table

ROUNDING = 1e-12  # of accuracies, which are shares of whole images


@dataclass(frozen=True)
class EvaluatedCandidate:
    """A candidate as it was judged, on the images that choose.

    Attributes
    ----------
    stage : ``"cut"``, ``"little"`` or ``"full"``: not trained, distilled a little, distilled fully
    image_size : ``"112x112"``: height and width in pixels
    width : share of the heavy expert's MACs at that image size
    branches : residual branches that are left
    shared_blocks : first blocks that both experts share
    light : cost of an image of the light expert as a ratio of the heavy one's
    light_accuracy : its top-1 accuracy
    threshold : of the maximum probability, below which an image escalates
    answers : what answers an image that escalates, ``"heavy"`` or ``"both"``
    escalation, accuracy, charged : of the cascade at this threshold; charged = light + escalation * (1 - shared)
    images_per_second : of the cascade, by the times of both experts in batches of 32; 0 where costs are MACs
    oracle : charged cost if only what the light expert loses against the heavy one escalated
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
            f"{self.stage:<6} {self.image_size:>9} px  width {self.width:.2f}  {self.branches:>3} branches  {self.shared_blocks:>2} shared  "
            f"light {self.light:.3f}x {100 * self.light_accuracy:.1f} %  escalates {100 * self.escalation:.1f} %: {self.charged:.3f}x charged{speed}"
        )


class Frontier(Table):
    """Everything that was judged, one row each, in the order of the search, with the columns of :class:`EvaluatedCandidate`.

    Metadata: ``agflow.cost`` ("macs" or "seconds") that the costs are of, the heavy expert's accuracy
    ``agflow.heavy_accuracy`` and the ``agflow.tolerance`` against it that was searched with, ``agflow.chosen``, the row of the design, and ``agflow.seed``.
    """

    kind = "frontier"

    @classmethod
    def of(cls, rows: list[EvaluatedCandidate], metadata: dict[str, str]) -> Frontier:
        batch = pa.RecordBatch.from_pylist([asdict(row) for row in rows])
        return cls(batch.replace_schema_metadata({"agflow.kind": cls.kind, **metadata}))

    @property
    def rows(self) -> list[EvaluatedCandidate]:
        return [EvaluatedCandidate(**row) for row in self.batch.to_pylist()]

    @property
    def chosen(self) -> EvaluatedCandidate:
        return self.rows[int(self.metadata["agflow.chosen"])]

    def __str__(self) -> str:
        """The rows of each stage, the cheapest first; an arrow marks the chosen one."""
        chosen, lines = self.chosen, [self._title()]
        for stage in ("cut", "little", "full"):
            judged = sorted(
                (row for row in self.rows if row.stage == stage), key=lambda row: row.charged
            )
            lines += [f"{'->' if row == chosen else '  '} {row}" for row in judged]
        return "\n".join(lines)

    def markdown(self) -> str:
        """A page with the same as a table."""
        names = (
            "stage",
            "image size",
            "width",
            "branches",
            "shared blocks",
            "light cost",
            "light accuracy",
            "escalation",
            "charged",
            "images/s",
        )
        lines = [
            "# Cascades that were judged",
            "",
            self._title(),
            "",
            f"| {' | '.join(names)} |",
            "|" + "---|" * len(names),
        ]
        for row in self.rows:
            speed = f"{row.images_per_second:.0f}" if row.images_per_second else ""
            cells = (
                row.stage,
                row.image_size,
                f"{row.width:.2f}",
                row.branches,
                row.shared_blocks,
                f"{row.light:.3f}x",
                f"{100 * row.light_accuracy:.1f} %",
                f"{100 * row.escalation:.1f} %",
                f"**{row.charged:.3f}x**" if row == self.chosen else f"{row.charged:.3f}x",
                speed,
            )
            lines.append(f"| {' | '.join(map(str, cells))} |")
        return "\n".join(lines) + "\n"

    def _title(self) -> str:
        return (
            f"Least cost in {self.metadata['agflow.cost']} per image, as a ratio of the heavy expert's, at its accuracy of "
            f"{100 * float(self.metadata['agflow.heavy_accuracy']):.1f} % less {100 * float(self.metadata['agflow.tolerance']):.2g} points, "
            "on the images that chose; thresholds are still to be calibrated on others"
        )


def evaluate_candidate(
    stage: str,
    candidate: Candidate,
    branches: int,
    light_NK: torch.Tensor,
    heavy_NK: torch.Tensor,
    labels_N: torch.Tensor,
    costs: Costs,
    *,
    tolerance: float,
    ensemble: bool,
    heavy_seconds: float = 0.0,
) -> EvaluatedCandidate:
    """The cheapest threshold of a candidate at which its cascade loses at most ``tolerance`` of the heavy expert's accuracy.

    Every threshold is looked at. There always is one: when all images escalate, the heavy expert answers.

    Parameters
    ----------
    costs : in MACs, or any other unit
    ensemble : also try the ensemble of both experts for images that escalate
    heavy_seconds : per image; 0 where nothing was timed
    """
    predictions = join_predictions(light_NK, heavy_NK, labels_N, costs)
    goal, found = predictions.heavy_accuracy - tolerance - ROUNDING, []
    for how in (BOTH, HEAVY) if ensemble else (HEAVY,):
        if how != HEAVY and "both_prediction" not in predictions.columns:
            continue
        points = curve(predictions, points=len(predictions) + 1, ensemble=how == BOTH).columns
        reached = np.flatnonzero(points["accuracy"] >= goal)
        if len(reached):
            found.append(
                (
                    how,
                    {
                        name: float(points[name][reached[0]])
                        for name in ("threshold", "escalation", "accuracy", "charged")
                    },
                )
            )
    how, point = min(found, key=lambda pair: pair[1]["charged"])
    light, lost = (
        costs.light / costs.heavy,
        max(0.0, predictions.heavy_accuracy - predictions.light_accuracy),
    )
    return EvaluatedCandidate(
        stage=stage,
        image_size="x".join(map(str, candidate.image_size)),
        width=candidate.width,
        branches=branches,
        shared_blocks=candidate.shared_blocks,
        light=light,
        light_accuracy=predictions.light_accuracy,
        answers=how,
        **point,
        images_per_second=1 / (point["charged"] * heavy_seconds) if heavy_seconds else 0.0,
        oracle=light + lost * (1 - costs.shared / costs.heavy),
    )
