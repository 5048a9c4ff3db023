"""How far scores can be trusted: spread, agreement between criteria, stability over batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from html import escape
from typing import Any, Generic, TypeVar

import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.request import request_json
from agflow._utils.defaults import default
from agflow.calibration.statistics import Statistics
from agflow.errors import EmptyError
from agflow.table import Table

Value = TypeVar("Value", bound="Match | Range | Spread")


@dataclass(frozen=True)
class PerLayer(Generic[Value]):
    """A figure over all units, and the same inside every layer.

    Attributes
    ----------
    overall : over all units
    layers : by layer name
    """

    overall: Value
    layers: dict[str, Value]


@dataclass(frozen=True)
class Range:
    """Spread of the scores; a ratio is None where its denominator is 0.

    Attributes
    ----------
    max, median : of the scores
    p1, p99 : percentiles, interpolated
    max_over_median, p99_over_p1 : dynamic range
    """

    max: float
    median: float
    p1: float
    p99: float
    max_over_median: float | None
    p99_over_p1: float | None


@dataclass(frozen=True)
class Match:
    """How alike two criteria choose units.

    Attributes
    ----------
    jaccard : units that both keep over units that either keeps
    chance : about the Jaccard similarity of two random choices
    spearman : rank correlation of the scores; None where all scores are equal
    """

    jaccard: float
    chance: float
    spearman: float | None


@dataclass(frozen=True)
class Spread:
    """Mean and percentiles of the Jaccard similarities of the bootstrap draws."""

    mean: float
    p5: float
    p95: float


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """Dynamic range of every criterion and agreement of every two (see :func:`diagnose`).

    Attributes
    ----------
    pruning_ratio : at which the kept units were compared
    ranges : by criterion
    agreements : by two criteria
    """

    pruning_ratio: float
    ranges: dict[str, PerLayer[Range]]
    agreements: dict[tuple[str, str], PerLayer[Match]]

    def agreement(self, a: str, b: str) -> PerLayer[Match]:
        """Return the agreement of two criteria, in either order.

        Raises
        ------
        KeyError
            One of the criteria was not diagnosed.
        """
        return self.agreements.get((a, b)) or self.agreements[b, a]

    def to_pandas(self):
        """Return a pandas DataFrame with one row for each two criteria; needs pandas."""
        rows = [
            {"a": a, "b": b, **asdict(match.overall)} for (a, b), match in self.agreements.items()
        ]
        return pa.Table.from_pylist(rows).to_pandas()

    def __repr__(self) -> str:
        return (
            f"<agflow.diagnostics.Diagnosis: {len(self.ranges)} criteria compared at pruning ratio "
            f"{self.pruning_ratio:g}>"
        )

    def __str__(self) -> str:
        lines = [f"{'dynamic range':<18} {'max/median':>12} {'p99/p1':>12}"]
        lines += [
            f"{name:<18} {_number(r.overall.max_over_median)} {_number(r.overall.p99_over_p1)}"
            for name, r in self.ranges.items()
        ]
        if self.agreements:
            kept = f"kept at {self.pruning_ratio:g}"
            lines += ["", f"{kept:<37} {'Jaccard':>8} {'chance':>8} {'Spearman':>9}"]
        for (a, b), match in self.agreements.items():
            overall = match.overall
            lines.append(
                f"{a:<18} {b:<18} {overall.jaccard:8.3f} {overall.chance:8.3f} "
                f"{_number(overall.spearman, 9, '.3f')}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


@dataclass(frozen=True, repr=False)
class Stability:
    """How alike few batches and all batches choose units (see :func:`stability`).

    Attributes
    ----------
    criterion, pruning_ratio : by which units were kept
    batches : in all
    draws : of each size
    sizes : by the number of batches of a draw, the similarity to the choice of all batches
    """

    criterion: str
    pruning_ratio: float
    batches: int
    draws: int
    sizes: dict[int, PerLayer[Spread]]

    def to_pandas(self):
        """Return a pandas DataFrame with one row a size; needs pandas."""
        rows = [{"size": size, **asdict(found.overall)} for size, found in self.sizes.items()]
        return pa.Table.from_pylist(rows).to_pandas()

    def __repr__(self) -> str:
        similar = ", ".join(f"{n}: {found.overall.mean:.3f}" for n, found in self.sizes.items())
        return (
            f"<agflow.diagnostics.Stability: {self.criterion}, mean Jaccard similarity to all "
            f"{self.batches} batches by the size of a draw {{{similar}}}>"
        )

    def __str__(self) -> str:
        lines = [
            f"{self.criterion}, kept at {self.pruning_ratio:g}, against all {self.batches} batches "
            f"({self.draws} draws a size)",
            f"{'batches':>8} {'Jaccard':>8} {'p5':>8} {'p95':>8}",
        ]
        lines += [
            f"{size:>8} {s.overall.mean:8.3f} {s.overall.p5:8.3f} {s.overall.p95:8.3f}"
            for size, s in self.sizes.items()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def diagnose(
    statistics: Table,
    *,
    criteria: Sequence[str] = (),
    pruning_ratio: float = default("diagnose", "pruning_ratio"),
    seed: int = default("common", "seed"),
) -> Diagnosis:
    """Score units by several criteria and compare the scores.

    The dynamic range is max/median of the scores, which falls as a model converges ("signal
    compression", arXiv 2603.12354), and p99/p1. Criteria are compared by the units that each keeps
    when every layer loses ``pruning_ratio`` of its own.

    Parameters
    ----------
    statistics : Statistics of :func:`agflow.calibrate`
    criteria : names of :func:`agflow.criteria`; all that the statistics suffice for when empty
    pruning_ratio : share of each layer's units to remove, in (0, 1)
    seed : used by ``"random"`` only

    Raises
    ------
    InvalidValueError
        Unknown criterion, or a share out of range.
    UnknownLayerError
        A criterion needs sums that were not recorded.

    Examples
    --------
    >>> import agflow
    >>> from agflow.diagnostics import diagnose
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=64)
    >>> statistics = agflow.calibrate(model, DataLoader(images, batch_size=32))
    >>> found = diagnose(statistics, criteria=["agf", "magnitude"])
    >>> found
    <agflow.diagnostics.Diagnosis: 2 criteria compared at pruning ratio 0.5>
    >>> 0 < found.agreement("agf", "magnitude").overall.jaccard < 1
    True
    """
    request = {"criteria": list(criteria), "pruning_ratio": pruning_ratio, "seed": seed}
    batch = Statistics.of_any(statistics).batch
    report = json.loads(arrow.call(core().diagnose, request_json(request), batch))
    return Diagnosis(
        report["pruning_ratio"],
        {ranges["criterion"]: _per_layer(Range, ranges) for ranges in report["ranges"]},
        {(match["a"], match["b"]): _per_layer(Match, match) for match in report["agreements"]},
    )


def stability(
    statistics: Sequence[Table],
    *,
    criterion: str = default("score", "criterion"),
    pruning_ratio: float = default("diagnose", "pruning_ratio"),
    sizes: Sequence[int] = default("diagnose", "sizes"),
    draws: int = default("diagnose", "draws"),
    seed: int = default("common", "seed"),
) -> Stability:
    """Measure by bootstrap over batches whether few batches keep the units that all batches keep.

    For each size, batches are drawn with replacement and merged; the figure is the Jaccard
    similarity of the units kept to those that all batches together keep (Efron 1979).

    Parameters
    ----------
    statistics : one a batch, such as ``[agflow.calibrate(model, [batch]) for batch in loader]``
    criterion : a name of :func:`agflow.criteria`
    pruning_ratio : share of each layer's units to remove, in (0, 1)
    sizes : numbers of batches to draw
    draws : of each size
    seed : of the draws

    Raises
    ------
    EmptyError
        No statistics.
    InvalidValueError
        Those of a single batch, an unknown criterion, a number out of range, or statistics of
        different weights.
    UnknownLayerError, ShapeError
        Statistics of different layers, or without the sums that the criterion needs.

    Examples
    --------
    >>> import agflow
    >>> from agflow.diagnostics import stability
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=64)
    >>> loader = DataLoader(images, batch_size=16)
    >>> statistics = [agflow.calibrate(model, [batch]) for batch in loader]
    >>> found = stability(statistics, sizes=(1, 4), draws=10)
    >>> found.sizes[1].overall.mean < found.sizes[4].overall.mean
    True
    """
    if not statistics:
        raise EmptyError(
            "no statistics were given, expected one a batch: calibrate each batch on its own"
        )
    batches = [Statistics.of_any(each).batch for each in statistics]
    metadata = batches[0].schema.metadata
    tables = (
        pa.Table.from_batches([batch.replace_schema_metadata(metadata) for batch in batches])
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
    report = json.loads(arrow.call(core().stability, request_json(request), *tables))
    return Stability(
        report["criterion"],
        report["pruning_ratio"],
        report["batches"],
        report["draws"],
        {size["size"]: _per_layer(Spread, size) for size in report["sizes"]},
    )


def _per_layer(kind: type[Value], report: dict[str, Any]) -> PerLayer[Value]:
    return PerLayer(
        _figures(kind, report["overall"]),
        {layer["layer"]: _figures(kind, layer) for layer in report["layers"]},
    )


def _figures(kind: type[Value], report: dict[str, Any]) -> Value:
    """Read the entries of ``report`` that ``kind`` has fields for."""
    return kind(**{field.name: report[field.name] for field in fields(kind)})


def _number(value: float | None, width: int = 12, form: str = ".1f") -> str:
    return f"{'–':>{width}}" if value is None else f"{value:>{width}{form}}"
