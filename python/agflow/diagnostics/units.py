"""How far scores can be trusted: their spread, agreement between criteria, stability over batches, and against random."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow._utils.progress import hidden_progress, progress_bar
from agflow.errors import EmptyError, InvalidValueError
from agflow.pruning.planning import plan
from agflow.table import Table

if TYPE_CHECKING:
    from torch import nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class PerLayer(Generic[Value]):
    """A figure over all units, and the same inside every layer."""

    overall: Value
    layers: dict[str, Value]


@dataclass(frozen=True)
class Range:
    """Spread of the scores. A ratio is None where its denominator is 0."""

    max: float
    median: float
    p1: float
    p99: float
    max_over_median: float | None
    p99_over_p1: float | None


@dataclass(frozen=True)
class Match:
    """How alike two criteria choose: Jaccard similarity of the kept units, about what chance gives, rank correlation.

    ``spearman`` is None where all scores are equal.
    """

    jaccard: float
    chance: float
    spearman: float | None


@dataclass(frozen=True)
class Spread:
    """Mean and percentiles of the Jaccard similarities of the draws."""

    mean: float
    p5: float
    p95: float


@dataclass(frozen=True)
class Diagnosis:
    """Dynamic range of every criterion and agreement of every two (see :func:`diagnose`)."""

    pruning_ratio: float
    ranges: dict[str, PerLayer[Range]]
    agreements: dict[tuple[str, str], PerLayer[Match]]

    def agreement(self, a: str, b: str) -> PerLayer[Match]:
        """Of two criteria, in either order; KeyError for one that was not diagnosed."""
        return self.agreements.get((a, b)) or self.agreements[b, a]

    def __str__(self) -> str:
        lines = [f"{'dynamic range':<18} {'max/median':>12} {'p99/p1':>12}"]
        lines += [
            f"{name:<18} {_number(r.overall.max_over_median)} {_number(r.overall.p99_over_p1)}"
            for name, r in self.ranges.items()
        ]
        if self.agreements:
            lines += [
                "",
                f"{f'kept at {self.pruning_ratio:g}':<37} {'Jaccard':>8} {'chance':>8} {'Spearman':>9}",
            ]
        for (a, b), match in self.agreements.items():
            overall = match.overall
            lines.append(
                f"{a:<18} {b:<18} {overall.jaccard:8.3f} {overall.chance:8.3f} {_number(overall.spearman, 9, '.3f')}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Stability:
    """How alike few batches and all of them choose (see :func:`stability`); ``sizes`` by the batches of a draw."""

    criterion: str
    pruning_ratio: float
    batches: int
    draws: int
    sizes: dict[int, PerLayer[Spread]]

    def __str__(self) -> str:
        lines = [
            f"{self.criterion}, kept at {self.pruning_ratio:g}, against all {self.batches} batches ({self.draws} draws a size)",
            f"{'batches':>8} {'Jaccard':>8} {'p5':>8} {'p95':>8}",
        ]
        lines += [
            f"{size:>8} {s.overall.mean:8.3f} {s.overall.p5:8.3f} {s.overall.p95:8.3f}"
            for size, s in self.sizes.items()
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class Verdict:
    """Whether a criterion beats random pruning here (see :func:`against_random`). Accuracies are shares in [0, 1]."""

    verdict: str
    p_value: float
    confidence: float
    draws: int
    needed_draws: int
    accuracy: float
    random_mean: float
    random_min: float
    random_max: float

    def __str__(self) -> str:
        more = f"; {self.needed_draws} draws would do" if self.draws < self.needed_draws else ""
        return (
            f"{self.verdict}{more}: {100 * self.accuracy:.2f} %, random {100 * self.random_mean:.2f} % "
            f"({100 * self.random_min:.2f} to {100 * self.random_max:.2f}, {self.draws} draws), p = {self.p_value:.3g} at confidence {self.confidence:g}"
        )


def diagnose(
    statistics: Table, *, criteria: Sequence[str] = (), pruning_ratio: float = 0.5, seed: int = 0
) -> Diagnosis:
    """Score ``statistics`` by several criteria and compare the scores.

    The dynamic range is max/median of the scores, which falls as a model converges ("signal compression",
    arXiv 2603.12354); p99/p1 is beside it. Criteria are compared by the units each keeps when every layer loses
    ``pruning_ratio`` of its own.

    Parameters
    ----------
    criteria : names of :func:`agflow.criteria`; all that the statistics suffice for when empty
    pruning_ratio : share of each layer's units to remove, in (0, 1)
    seed : used by ``"random"`` only

    Raises
    ------
    InvalidValueError
        Unknown criterion, or a share out of range.
    UnknownLayerError
        A criterion needs sums that were not recorded.
    """
    request = {"criteria": list(criteria), "pruning_ratio": pruning_ratio, "seed": seed}
    report = json.loads(arrow.call(core().diagnose, json.dumps(request), statistics.batch))
    return Diagnosis(
        report["pruning_ratio"],
        {ranges["criterion"]: _per_layer(Range, ranges) for ranges in report["ranges"]},
        {(match["a"], match["b"]): _per_layer(Match, match) for match in report["agreements"]},
    )


def stability(
    statistics: Sequence[Table],
    *,
    criterion: str = "agf",
    pruning_ratio: float = 0.5,
    sizes: Sequence[int] = (10, 100),
    draws: int = 100,
    seed: int = 0,
) -> Stability:
    """Bootstrap over batches: do ``sizes`` batches keep the units that all batches keep?

    For each size, batches are drawn with replacement and merged; the figure is the Jaccard similarity of the units
    kept to those that all batches together keep.

    Parameters
    ----------
    statistics : one a batch, such as ``[agflow.calibrate(model, [batch]) for batch in loader]``
    pruning_ratio : share of each layer's units to remove, in (0, 1)
    draws : of each size

    Raises
    ------
    EmptyError
        No statistics.
    InvalidValueError
        Those of a single batch, unknown criterion, a number out of range, or statistics of different weights.
    UnknownLayerError, ShapeError
        Statistics of different layers, or without the sums that the criterion needs.
    """
    if not statistics:
        raise EmptyError(
            "no statistics were given, expected one a batch: calibrate each batch on its own"
        )
    metadata = statistics[0].batch.schema.metadata
    tables = (
        pa.Table.from_batches([each.batch.replace_schema_metadata(metadata) for each in statistics])
        .combine_chunks()
        .to_batches()
    )
    request = {
        "tables": len(statistics),
        "criterion": criterion,
        "pruning_ratio": pruning_ratio,
        "sizes": list(sizes),
        "draws": draws,
        "seed": seed,
    }
    report = json.loads(arrow.call(core().stability, json.dumps(request), *tables))
    return Stability(
        report["criterion"],
        report["pruning_ratio"],
        report["batches"],
        report["draws"],
        {size["size"]: _per_layer(Spread, size) for size in report["sizes"]},
    )


def against_random(
    model: nn.Module,
    statistics: Table,
    loader: Iterable,
    *,
    criterion: str = "agf",
    pruning_ratio: float = 0.5,
    draws: int = 19,
    confidence: float = 0.95,
    seed: int = 0,
    calibration: Iterable | None = None,
    compensate: str = "none",
) -> Verdict:
    """Cut ``model`` by the criterion and by ``draws`` random choices of as many units, and compare them on ``loader``.

    Were the criterion no better than chance, its model would be as likely as any of the random ones to be the best: the
    share of models that do at least as well, p = (1 + #{random ≥ criterion}) / (1 + draws), is an exact test. "Better
    than random here" says so for this model, these images and this pruning ratio.

    Parameters
    ----------
    statistics : of ``model``
    loader : batches of (images, labels), gone through once for each of the 1 + draws models, on images that chose nothing
    pruning_ratio : share of each layer's units to remove, in (0, 1)
    draws : random models; at least 19 for a confidence of 0.95
    seed : of the first random model; the next ones count on from it
    calibration, compensate : images for the repair after each cut, and its kind (see :func:`agflow.prune`)

    Raises
    ------
    InvalidValueError
        A number out of range, an unknown criterion, or a loader that can be gone through only once.
    EmptyError
        No draws, or a loader without a batch.
    UnsupportedModelError, UnknownLayerError, ShapeError, DtypeError
        The model cannot be cut, or the statistics are of another one.
    """
    for name, images in {"loader": loader, "calibration": calibration}.items():
        if images is not None and iter(images) is images:
            raise InvalidValueError(
                f"{name} can be gone through only once, but {1 + draws} models are compared on it: pass a DataLoader or a list of batches"
            )
    choices = [(criterion, seed), *(("random", seed + draw) for draw in range(draws))]
    counts = [
        _correct(
            model,
            plan(statistics, pruning_ratio=pruning_ratio, criterion=name, seed=number),
            loader,
            calibration,
            compensate,
        )
        for name, number in progress_bar(choices, "against random")
    ]
    (correct, images), *random = counts
    request = {
        "images": images,
        "correct": correct,
        "random_correct": [count for count, _ in random],
        "confidence": confidence,
    }
    return Verdict(**json.loads(core().against_random(json.dumps(request))))


def _correct(
    model: nn.Module, chosen, loader: Iterable, calibration: Iterable | None, compensate: str
) -> tuple[int, int]:
    """Images that the cut model classifies rightly, and all images."""
    from agflow.evaluation.accuracy import logits  # torch only where a model is run
    from agflow.pruning.pruner import prune

    with hidden_progress():
        light = prune(model, chosen, calibration, compensate=compensate)
        logits_NK, labels_N = logits(light, loader)
    return int((logits_NK.argmax(1) == labels_N).sum()), len(labels_N)


def _per_layer(kind: type[Value], report: dict[str, Any]) -> PerLayer[Value]:
    return PerLayer(
        _figures(kind, report["overall"]),
        {layer["layer"]: _figures(kind, layer) for layer in report["layers"]},
    )


def _figures(kind: type[Value], report: dict[str, Any]) -> Value:
    """The entries of ``report`` that ``kind`` has fields for."""
    return kind(**{field.name: report[field.name] for field in fields(kind)})


def _number(value: float | None, width: int = 12, form: str = ".1f") -> str:
    return f"{'–':>{width}}" if value is None else f"{value:>{width}{form}}"
