"""Plan what to keep under a budget; the ranking itself happens in the Go core."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.request import request_json
from agflow._utils.defaults import default
from agflow.calibration.statistics import Statistics
from agflow.errors import BudgetError, InvalidValueError
from agflow.pruning.allocation import Allocation
from agflow.pruning.latency import LatencyTable
from agflow.pruning.scoring import Scores, score
from agflow.table import Table, UnitTable

BUDGETS = ("macs", "params", "latency_ms", "pruning_ratio")


@dataclass(frozen=True)
class PlannedLayer:
    """How many units of a layer a plan keeps."""

    name: str
    group: str
    units: int
    kept: int


class Plan(UnitTable):
    """The units of each layer that are kept; a file that can be read, compared and applied later.

    Columns: layer, group, unit, unit_width, parts, unit_macs, unit_params, score (float64), keep
    (bool). Every layer keeps at least one unit, except those of group ``"block"``: there, none kept
    means that the whole residual branch is removed.

    Attributes
    ----------
    report : the solver's report, None for a plan that was loaded: MACs, parameters and (with a
        latency table) milliseconds of the dense and the pruned model, by how much they miss the
        budget, and the price of rounding

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=64)
    >>> statistics = agflow.calibrate(model, DataLoader(images, batch_size=32))
    >>> plan = agflow.plan(statistics, macs=0.5)
    >>> plan.budget
    ('macs', '0.5')
    >>> plan.planned[1].name, plan.planned[1].kept == len(plan.kept("blocks.0.mlp"))
    ('blocks.0.mlp', True)
    """

    kind = "plan"

    def __init__(
        self,
        batch: Any,
        report: dict | None = None,
        metadata: Mapping[str, str] | None = None,
    ):
        super().__init__(batch, metadata)
        self.report = report

    def kept(self, layer: str) -> np.ndarray:
        """Return the indices of the units of ``layer`` that are kept, ascending int64.

        Raises
        ------
        UnknownLayerError
            The plan has no layer of that name.
        """
        return np.flatnonzero(self.columns["keep"][self.rows_of(layer)])

    @cached_property
    def planned(self) -> list[PlannedLayer]:
        """The layers with how many of their units are kept."""
        return [
            PlannedLayer(layer.name, layer.group, layer.units, len(self.kept(layer.name)))
            for layer in self.layers
        ]

    @property
    def criterion(self) -> str:
        """Name of the criterion that ranks the units inside each layer."""
        return self.metadata["agflow.criterion"]

    @property
    def widths(self) -> str:
        """How the units are shared out among the layers: ``"uniform"`` or a criterion."""
        return self._request["widths"]

    @property
    def budget(self) -> tuple[str, str | float]:
        """The budget as it was given: its name, one of ``BUDGETS``, and its value."""
        return next((name, self._request[name]) for name in BUDGETS if self._request[name])

    @property
    def macs(self) -> int:
        """MACs per image of the pruned model."""
        return self._planned["macs"]

    @property
    def macs_share(self) -> float:
        """MACs of the pruned model over the dense one's; NaN where those were not recorded."""
        return self.macs / self.model_macs if self.model_macs else math.nan

    @property
    def params(self) -> int:
        """Parameters of the pruned model."""
        return self._planned["params"]

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds of the pruned model for a batch; None where no latency table was given."""
        return self._planned.get("latency_ms")

    @cached_property
    def _request(self) -> dict:
        return json.loads(self.metadata["agflow.request"])

    @cached_property
    def _planned(self) -> dict:
        return json.loads(self.metadata["agflow.planned"])

    def diff(self, other: Plan) -> PlanDiff:
        """Compare the units that this plan keeps with those that another plan keeps.

        Raises
        ------
        ShapeError
            The other plan is of other layers.
        """
        batch = Plan.of_any(other).batch
        return PlanDiff.of(json.loads(arrow.call(core().diff, self.batch, batch)))

    def _summary(self) -> str:
        size = "" if self.image_size is None else " at {}x{}".format(*self.image_size)
        return (
            f"plan by {self.criterion}, widths {self.widths}{size}: {self.macs / 1e6:.1f} M of "
            f"{self.model_macs / 1e6:.1f} M MACs ({self.macs_share:.3f}x), "
            f"{self.params / 1e6:.2f} M parameters"
        )

    @property
    def kept_channels(self) -> list[str]:
        """What the plan could not touch, and why, one line each; empty where that is not known."""
        return [
            "{name}: {channels} channels kept, {reason}".format(**of)
            for of in json.loads(self.metadata.get("agflow.kept", "[]"))
        ]

    def __str__(self) -> str:
        lines = [f"  {p.name:<22} {p.group:<8} keeps {p.kept} of {p.units}" for p in self.planned]
        kept = [f"  {line}" for line in self.kept_channels]
        return "\n".join([self._summary(), *lines, *kept])

    def __repr__(self) -> str:
        budget, value = self.budget
        kept = sum(layer.kept for layer in self.planned)
        return (
            f"<agflow.Plan: keeps {kept} of {len(self)} units in {len(self.layers)} layers, "
            f"{self.macs_share:.3f}x of the MACs, budget {budget}={value}, "
            f"criterion {self.criterion}>"
        )

    def _repr_html_(self) -> str:
        budget, value = self.budget
        rows = "".join(
            f"<tr><td>{escape(p.name)}</td><td>{p.group}</td><td>{p.kept}</td><td>{p.units}</td></tr>"
            for p in self.planned
        )
        return (
            f"<b>Plan</b> of {escape(self.model)} for {budget}={value}: {escape(self._summary())}"
            "<table><tr><th>layer</th><th>group</th><th>kept</th><th>units</th></tr>"
            f"{rows}</table>" + "<br>".join(map(escape, self.kept_channels))
        )


@dataclass(frozen=True)
class Overlap:
    """Units that two plans keep, in one layer or in all layers.

    Attributes
    ----------
    units : of the dense model
    a, b, both : kept by the first plan, by the second, and by both
    jaccard : kept by both over kept by either; 1 where neither keeps any
    """

    units: int
    a: int
    b: int
    both: int
    jaccard: float


@dataclass(frozen=True)
class PlanDiff:
    """How far two plans keep the same units (see :meth:`Plan.diff`).

    Attributes
    ----------
    overall : over all layers
    layers : by layer name

    Examples
    --------
    >>> from agflow.pruning import PlanDiff
    >>> from agflow.pruning.planning import Overlap
    >>> print(PlanDiff(Overlap(8, 4, 4, 2, 1 / 3), {"mlp": Overlap(8, 4, 4, 2, 1 / 3)}))
    mlp                    keeps 4 and 4 of 8, 2 of them alike (Jaccard 0.333)
    all                    keeps 4 and 4 of 8, 2 of them alike (Jaccard 0.333)
    """

    overall: Overlap
    layers: dict[str, Overlap]

    @classmethod
    def of(cls, found: dict) -> PlanDiff:
        """Read the comparison from the JSON of the Go core."""
        counts = lambda entry: Overlap(*(entry[name] for name in Overlap.__dataclass_fields__))
        return cls(counts(found), {entry["layer"]: counts(entry) for entry in found["layers"]})

    def to_pandas(self):
        """Return a pandas DataFrame with one row a layer; needs pandas."""
        rows = [{"layer": name, **asdict(row)} for name, row in self.layers.items()]
        return pa.Table.from_pylist(rows).to_pandas()

    def __str__(self) -> str:
        rows = [*self.layers.items(), ("all", self.overall)]
        return "\n".join(
            f"{name:<22} keeps {row.a} and {row.b} of {row.units}, "
            f"{row.both} of them alike (Jaccard {row.jaccard:.3f})"
            for name, row in rows
        )

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def plan(
    statistics: Table,
    *,
    macs: float | str | None = None,
    params: float | str | None = None,
    latency_ms: float | None = None,
    pruning_ratio: float | None = None,
    criterion: str | Callable[[Statistics], Any] = default("score", "criterion"),
    allocation: Allocation = Allocation(),
    seed: int = default("common", "seed"),
) -> Plan:
    """Choose the units to keep under one budget.

    Exactly one of ``macs``, ``params``, ``latency_ms`` and ``pruning_ratio`` is given. The plan
    never exceeds it, by the exact cost of the whole pruned model, and one step more would. The same
    request always gives the same plan, and a bigger budget keeps what a smaller one does.

    Parameters
    ----------
    statistics : Statistics of :func:`agflow.calibrate`, or Scores
    macs : MACs per image: a share of the dense model's (``0.35``) or an amount (``"350M"``,
        ``"1.2G"``). Where the statistics were measured at a smaller image size, the dense model's
        MACs are those it has *at that size*
    params : parameters: a share of the dense model's (``0.5``) or an amount (``"2.5M"``)
    latency_ms : milliseconds that a batch may take, predicted from ``allocation.latency``
    pruning_ratio : share of the units to remove, in (0, 1)
    criterion : ranks the units inside each layer: a name of :func:`agflow.criteria` or a function
        of the statistics, as of :func:`agflow.score`; Scores have theirs
    allocation : how the budget is shared out among the layers
    seed : used by the criterion ``"random"`` only

    Raises
    ------
    InvalidValueError
        Several budgets or none, a value out of range, an unknown criterion or group, widths by a
        criterion for Scores, a latency table that lacks a shape of the model.
    BudgetError
        No plan reaches the budget; the message names the least that can be reached.
    UnknownLayerError
        A pattern of ``allocation.ignored_layers`` matches no layer, or the statistics lack what a
        criterion needs.
    FileError, CorruptFileError
        The file of ``allocation.latency`` cannot be read, or is no latency table.

    Examples
    --------
    >>> import agflow
    >>> from agflow.pruning import Allocation
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=64)
    >>> statistics = agflow.calibrate(model, DataLoader(images, batch_size=32))
    >>> plan = agflow.plan(statistics, macs=0.5, allocation=Allocation(groups=["mlp"]))
    >>> plan.macs <= 0.5 * plan.model_macs
    True
    """
    table = _scores_or_statistics(statistics)
    if callable(criterion):
        if isinstance(table, Scores):
            raise InvalidValueError(
                f"criterion is a function and the table holds scores by {table.criterion}, "
                "expected one of both: give the statistics, or leave criterion out"
            )
        table = score(table, criterion, seed=seed)
    scored = isinstance(table, Scores)
    request = {
        "pruning_ratio": pruning_ratio or 0.0,
        "macs": "" if macs is None else str(macs),
        "params": "" if params is None else str(params),
        "latency_ms": latency_ms or 0.0,
        "joint": allocation.joint,
        "floor": allocation.floor,
        "round_to": allocation.round_to,
        "groups": allocation.groups_in({rows.group for rows in table.layers}),
        "ignored_layers": allocation.ignored_names({rows.name for rows in table.layers}),
        "criterion": "" if scored else criterion,
        "seed": seed,
        "widths": allocation.widths or "",
    }
    latency = allocation.latency
    if isinstance(latency, (str, os.PathLike)):
        latency = LatencyTable.load(latency)
    latencies = (0, 0) if latency is None else (LatencyTable.of_any(latency).batch,)
    try:
        report, batch = arrow.call_for_report(
            core().plan, request_json(request), table.batch, *latencies
        )
    except BudgetError as error:
        raise BudgetError(f"{error}{_what_is_kept(table.metadata)}") from None
    return Plan(batch, json.loads(report))


def _what_is_kept(metadata: Mapping[str, str]) -> str:
    """For a budget that cannot be met, why most of the channels stay that are in no group."""
    reasons: Counter[str] = Counter()
    for kept in json.loads(metadata.get("agflow.kept", "[]")):
        reasons[kept["reason"]] += kept["channels"]
    if not reasons:
        return ""
    ((reason, channels),) = reasons.most_common(1)
    return f"; most of what is kept ({channels} of {reasons.total()} channels): {reason}"


def _scores_or_statistics(value: Any) -> Scores | Statistics:
    """The table that a plan is made from; one of another tool is what its columns say."""
    if isinstance(value, (Scores, Statistics)):
        return value
    batch = arrow.record_batch(value, "statistics")
    return Scores(batch) if "score" in batch.schema.names else Statistics(batch)
