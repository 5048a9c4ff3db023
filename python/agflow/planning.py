"""From statistics to scores to a reviewable plan of what to keep; the ranking itself happens in the Go core."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from agflow import arrow
from agflow._core.loader import core
from agflow.tables import Table, UnitTable

# How a plan shares units out among layers unless told otherwise. DeiT-Tiny with half of the MLP channels by AGF, repaired:
# 72.5 % on 400 images, with uniform widths 71.0 %, uncut 71.5 %.
WIDTHS = "variance_weighted"
UNIFORM = "uniform"


class Scores(UnitTable):
    """One score per prunable unit: larger means keep.

    Columns: layer, group, unit, unit_width, parts, unit_macs, unit_params, score (float64).
    """

    kind = "scores"

    @property
    def criterion(self) -> str:
        return self.metadata["agflow.criterion"]

    def of(self, layer: str) -> np.ndarray:
        """Scores of one layer, float64 [units]; UnknownLayerError for a name that is not there."""
        return self.columns["score"][self.rows_of(layer)]


@dataclass(frozen=True)
class PlannedLayer:
    """What a plan does to one layer."""

    name: str
    group: str
    units: int
    kept: int


class Plan(UnitTable):
    """Which units of which layers stay; a file that can be read, compared and applied later.

    Columns: layer, group, unit, unit_width, parts, unit_macs, unit_params, score (float64), keep (bool).
    ``report`` holds the solver's account: dense and planned MACs, the miss, the price of rounding.
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
        return [PlannedLayer(layer.name, layer.group, layer.units, len(self.kept(layer.name))) for layer in self.layers]

    @property
    def widths(self) -> str:
        """What shared the units out among the layers: ``"uniform"`` or a criterion."""
        return json.loads(self.metadata["agflow.request"])["widths"]

    @property
    def macs(self) -> int:
        """MACs per image of the cut model."""
        dropped = ~self.columns["keep"]
        return self.model_macs - int(self.columns["unit_macs"][dropped].sum())

    def __str__(self) -> str:
        lines = [f"plan by {self.metadata['agflow.criterion']}, widths {self.widths}: {self.macs / 1e6:.1f} M of {self.model_macs / 1e6:.1f} M MACs "
                 f"({self.macs / self.model_macs:.3f}x)"]
        lines += [f"  {p.name:<16} {p.group:<6} keeps {p.kept} of {p.units}" for p in self.planned]
        return "\n".join(lines)


def criteria() -> dict[str, str]:
    """The criteria the core knows, name -> what it computes and where it comes from."""
    return {entry["name"]: entry["doc"] for entry in json.loads(core().criteria())}


def needs_weight_gradients(criterion: str) -> bool:
    """Whether a criterion reads what only ``calibrate(..., weight_gradients=True)`` records; False for unknown names."""
    return any(entry["name"] == criterion and entry["weight_gradients"] for entry in json.loads(core().criteria()))


def score(statistics: Table, criterion: str = "agf", *, seed: int = 0) -> Scores:
    """Score every unit of ``statistics``.

    Parameters
    ----------
    criterion : a name of :func:`criteria`; ``"agf"`` is U_c = E|Y_c * dL/dY_c| (arXiv 2603.12354)
    seed : used by ``"random"`` only

    Raises
    ------
    InvalidValueError
        Unknown criterion; the message lists the known ones.
    UnknownLayerError
        The criterion needs weights and the statistics were recorded without.
    """
    return Scores(arrow.call_for_batch(core().score, criterion, seed, statistics.batch))


def plan(statistics: Table, *, pruning_ratio: float | None = None, macs: float | str | None = None,
         criterion: str = "agf", widths: str | None = None, seed: int = 0, round_to: int = 8,
         groups: Sequence[str] = (), ignored_layers: Sequence[str] = ()) -> Plan:
    """Choose the units to keep under a budget.

    Parameters
    ----------
    statistics : Statistics, or Scores that were made before
    pruning_ratio : share of the units to remove, in (0, 1); this or ``macs``
    macs : budget per image: a share of the dense model (``0.35``) or an amount (``"350M"``, ``"1.2G"``)
    criterion : ranks the units inside each layer
    widths : how the units that stay are shared out among the layers of a group: ``"uniform"``, the same share of each, or
        a criterion, whose scores over their layer's mean are ranked together. By default ``"variance_weighted"``, but
        ``"uniform"`` for Scores, which hold one criterion only.
    round_to : kept MLP units are a multiple of this; heads are whole
    groups : prune only these groups (``"mlp"``, ``"heads"``); all when empty
    ignored_layers : names or patterns (``"blocks.0.*"``) of layers left whole

    Raises
    ------
    InvalidValueError
        Both budgets or none, a value out of range, an unknown criterion or group, widths by a criterion for Scores.
    BudgetError
        No plan reaches the budget; the message names the least MACs that can be reached.
    UnknownLayerError
        A pattern of ``ignored_layers`` matches no layer, or what a criterion needs was not recorded.
    """
    scored = isinstance(statistics, Scores)
    request = {"pruning_ratio": pruning_ratio or 0.0, "macs": "" if macs is None else str(macs), "round_to": round_to,
               "groups": list(groups), "ignored_layers": list(ignored_layers),
               "criterion": "" if scored else criterion, "seed": seed, "widths": widths or (UNIFORM if scored else WIDTHS)}
    report, batch = arrow.call_for_report(core().plan, json.dumps(request), statistics.batch)
    return Plan(batch, json.loads(report))
