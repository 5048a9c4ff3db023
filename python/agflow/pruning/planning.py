"""From statistics to scores to a reviewable plan of what to keep; the ranking itself happens in the Go core."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow.pruning.allocation import Allocation
from agflow.pruning.latency import LatencyTable
from agflow.pruning.scoring import Scores
from agflow.table import Table, UnitTable

# How a plan shares units out among layers unless told otherwise. DeiT-Tiny, MLPs cut by AGF and repaired on 250 images,
# top-1 on 250 images of classes that these do not show (uncut 80.8 %): 63.2 % at half and 37.2 % at three quarters, with
# uniform widths 60.8 % and 30.0 %.
WIDTHS = "variance_weighted"
UNIFORM = "uniform"
_DEFAULT = Allocation()


@dataclass(frozen=True)
class PlannedLayer:
    """What a plan does to one layer."""

    name: str
    group: str
    units: int
    kept: int


class Plan(UnitTable):
    """Which units of which layers stay; a file that can be read, compared and applied later.

    Columns: layer, group, unit, unit_width, parts, unit_macs, unit_params, score (float64), keep (bool). Every layer keeps a
    unit at least, but those of group ``"block"``: there, none kept means that the whole residual branch is dropped.
    ``report`` holds the solver's account: MACs, parameters and (with a latency table) milliseconds of the dense and the cut
    model, the miss, the price of rounding.
    """

    kind = "plan"

    def __init__(self, batch: pa.RecordBatch, report: dict | None = None):
        super().__init__(batch)
        self.report = report

    def kept(self, layer: str) -> np.ndarray:
        """Indices of the units of ``layer`` that stay, ascending int64; UnknownLayerError for an unknown name."""
        return np.flatnonzero(self.columns["keep"][self.rows_of(layer)])

    @cached_property
    def planned(self) -> list[PlannedLayer]:
        return [
            PlannedLayer(layer.name, layer.group, layer.units, len(self.kept(layer.name)))
            for layer in self.layers
        ]

    @property
    def widths(self) -> str:
        """What shared the units out among the layers: ``"uniform"`` or a criterion."""
        return json.loads(self.metadata["agflow.request"])["widths"]

    @property
    def macs(self) -> int:
        """MACs per image of the cut model."""
        return self._planned["macs"]

    @property
    def params(self) -> int:
        """Parameters of the cut model."""
        return self._planned["params"]

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds of the cut model for a batch of the latency table; None where no table was given."""
        return self._planned.get("latency_ms")

    @cached_property
    def _planned(self) -> dict:
        return json.loads(self.metadata["agflow.planned"])

    def diff(self, other: Plan) -> PlanDiff:
        """Compare what this plan keeps with what another plan of the same layers does.

        Raises
        ------
        ShapeError
            The other plan is of other layers.
        """
        return PlanDiff.of(json.loads(arrow.call(core().diff, self.batch, other.batch)))

    def __str__(self) -> str:
        of = "" if self.image_size is None else " at {}x{}".format(*self.image_size)
        lines = [
            f"plan by {self.metadata['agflow.criterion']}, widths {self.widths}{of}: {self.macs / 1e6:.1f} M of {self.model_macs / 1e6:.1f} M MACs "
            f"({self.macs / self.model_macs:.3f}x), {self.params / 1e6:.2f} M parameters"
        ]
        lines += [f"  {p.name:<22} {p.group:<8} keeps {p.kept} of {p.units}" for p in self.planned]
        return "\n".join(lines)


@dataclass(frozen=True)
class Overlap:
    """Units that two plans keep, in one layer or in all: ``a`` by the first, ``b`` by the second, ``both`` by both.

    ``jaccard`` is kept by both over kept by either, and 1 where neither keeps any.
    """

    units: int
    a: int
    b: int
    both: int
    jaccard: float


@dataclass(frozen=True)
class PlanDiff:
    """How far two plans keep the same units: ``overall``, and by layer name in ``layers``."""

    overall: Overlap
    layers: dict[str, Overlap]

    @classmethod
    def of(cls, found: dict) -> PlanDiff:
        counts = lambda entry: Overlap(*(entry[name] for name in Overlap.__dataclass_fields__))
        return cls(counts(found), {entry["layer"]: counts(entry) for entry in found["layers"]})

    def __str__(self) -> str:
        rows = [*self.layers.items(), ("all", self.overall)]
        return "\n".join(
            f"{name:<22} keeps {row.a} and {row.b} of {row.units}, {row.both} of them alike (Jaccard {row.jaccard:.3f})"
            for name, row in rows
        )


def plan(
    statistics: Table,
    *,
    macs: float | str | None = None,
    params: float | str | None = None,
    latency_ms: float | None = None,
    pruning_ratio: float | None = None,
    criterion: str = "agf",
    allocation: Allocation = _DEFAULT,
    seed: int = 0,
) -> Plan:
    """Choose the units to keep under a budget: ``pruning_ratio``, ``macs``, ``params`` or ``latency_ms``, one of them.

    The plan never exceeds its budget, by the exact cost of the whole cut model, and one step more would; the same request
    always gives the same plan, and a bigger budget keeps what a smaller one does.

    Parameters
    ----------
    statistics : Statistics, or Scores that were made before
    macs : MACs per image: a share of the dense model's (``0.35``) or an amount (``"350M"``, ``"1.2G"``). Where the statistics
        were measured at a smaller image size, the dense model's MACs are those it has *at that size*
    params : parameters: a share of the dense model's (``0.5``) or an amount (``"2.5M"``)
    latency_ms : milliseconds that a batch may take, by the table of ``allocation.latency``
    pruning_ratio : share of the units to remove, in (0, 1)
    criterion : ranks the units inside each layer
    allocation : how the budget is shared out among the layers

    Raises
    ------
    InvalidValueError
        Several budgets or none, a value out of range, an unknown criterion or group, widths by a criterion for Scores, a
        latency table that lacks a shape of the model.
    BudgetError
        No plan reaches the budget; the message names the least that can be reached.
    UnknownLayerError
        A pattern of ``allocation.ignored_layers`` matches no layer, or what a criterion needs was not recorded.
    FileError, CorruptFileError
        The file of ``allocation.latency`` cannot be read, or is no latency table.
    """
    scored = isinstance(statistics, Scores)
    request = {
        "pruning_ratio": pruning_ratio or 0.0,
        "macs": "" if macs is None else str(macs),
        "params": "" if params is None else str(params),
        "latency_ms": latency_ms or 0.0,
        "joint": allocation.joint,
        "floor": allocation.floor,
        "round_to": allocation.round_to,
        "groups": list(allocation.groups),
        "ignored_layers": list(allocation.ignored_layers),
        "criterion": "" if scored else criterion,
        "seed": seed,
        "widths": allocation.widths or (UNIFORM if scored else _widths(statistics, criterion)),
    }
    latency = allocation.latency
    if isinstance(latency, (str, os.PathLike)):
        latency = LatencyTable.load(latency)
    table = (0, 0) if latency is None else (latency.batch,)
    report, batch = arrow.call_for_report(
        core().plan, json.dumps(request), statistics.batch, *table
    )
    return Plan(batch, json.loads(report))


def _widths(statistics: Table, criterion: str) -> str:
    return WIDTHS if statistics.columns["reader_weights"].all() else criterion
