"""From statistics to scores: one number a prunable unit, by a criterion of the Go core."""

from __future__ import annotations

import json

import numpy as np

from agflow._core import arrow
from agflow._core.loader import core
from agflow.table import Table, UnitTable


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


def criteria() -> dict[str, str]:
    """The criteria the core knows, name -> what it computes and where it comes from."""
    return {entry["name"]: entry["doc"] for entry in json.loads(core().criteria())}


def needs_weight_gradients(criterion: str) -> bool:
    """Whether a criterion reads what only ``calibrate(..., weight_gradients=True)`` records; False for unknown names."""
    return any(
        entry["name"] == criterion and entry["weight_gradients"]
        for entry in json.loads(core().criteria())
    )


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
