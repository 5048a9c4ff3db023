"""What a run is asked and what it found: the values that the road fills and the report reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch.utils.data import Dataset

from agflow.cascade.curves import Curve
from agflow.cascade.ledger import Ledger
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router
from agflow.evaluation.accuracy import Accuracy
from agflow.evaluation.timing import Timing
from agflow.pruning.planning import Plan
from agflow.pruning.scoring import Scores


@dataclass(frozen=True)
class RunOptions:
    """Options of :func:`run`; the command's flags have the same names."""

    model: str = "example"
    weights: str | None = None
    data: str = "example:train"
    eval: str = "example:test"
    output: str = "agflow-run"
    macs: str | None = None
    pruning_ratio: float | None = None
    criterion: str = "agf"
    round_to: int = 8
    groups: tuple[str, ...] = ("mlp", "heads")
    ignored_layers: tuple[str, ...] = ()
    compensate: str = "ridge_at_once"
    batches: int = 20
    batch_size: int = 32
    epochs: int = 24
    lr: float = 1e-3
    limit: int | None = None
    eval_limit: int | None = None
    tolerance: float = 0.005
    confidence: float = 0.95
    seed: int = 0
    label: str | None = None


@dataclass(frozen=True)
class Stages:
    """Accuracy of one criterion's expert after each step, under the same budget and the same images."""

    cut: Accuracy
    repaired: Accuracy
    tuned: Accuracy


@dataclass(frozen=True)
class CascadeResult:
    """The cascade on images that chose neither weights nor threshold, over one set of classes."""

    router: Router
    ledger: Ledger
    light: float
    heavy: float
    cascade: float
    random: float
    curve: Curve = field(repr=False)


@dataclass(frozen=True)
class RunResult:
    """Everything a report needs; ``judged`` are the images of ``predictions``."""

    options: RunOptions
    name: str
    classes: int
    images: dict[str, int]
    fingerprint: str
    dense: Accuracy
    stages: dict[str, Stages]
    scores: Scores = field(repr=False)
    plan: Plan = field(repr=False)
    judged: Dataset = field(repr=False)
    predictions: Predictions = field(repr=False)
    cascade: CascadeResult
    cascade_among_present: CascadeResult | None
    timings: dict[str, Timing]

    @property
    def slower(self) -> bool:
        """Whether the light expert is slower than the heavy one on this machine: its fastest round loses to the other's slowest."""
        return self.timings["light"].spread[1] < self.timings["heavy"].spread[0]
