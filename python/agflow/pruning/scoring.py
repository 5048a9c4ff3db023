"""Score prunable units by the criteria of the Go core."""

from __future__ import annotations

import json

import numpy as np

from agflow._core import arrow
from agflow._core.loader import core
from agflow._utils.defaults import default
from agflow.calibration.statistics import Statistics
from agflow.table import Table, UnitTable


class Scores(UnitTable):
    """One score for each prunable unit: units with larger scores are kept.

    Columns: layer, group, unit, unit_width, parts, unit_macs, unit_params, score (float64).

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=64)
    >>> scores = agflow.score(agflow.calibrate(model, DataLoader(images, batch_size=32)), "agf")
    >>> scores
    <agflow.Scores: criterion agf, 3096 units in 12 layers>
    >>> scores.of("blocks.0.mlp").shape
    (512,)
    """

    kind = "scores"

    @property
    def criterion(self) -> str:
        """Name of the criterion that made the scores."""
        return self.metadata["agflow.criterion"]

    def of(self, layer: str) -> np.ndarray:
        """Return the scores of one layer, float64 [units].

        Raises
        ------
        UnknownLayerError
            There is no layer of that name.
        """
        return self.columns["score"][self.rows_of(layer)]

    def __repr__(self) -> str:
        return (
            f"<agflow.Scores: criterion {self.criterion}, {len(self)} units in "
            f"{len(self.layers)} layers>"
        )


def criteria() -> dict[str, str]:
    """Return the known criteria: by name, what each computes and its source.

    Examples
    --------
    >>> import agflow
    >>> agflow.criteria()["agf"].partition(";")[0]
    'mean |activation x gradient| per row (arXiv 2603.12354)'
    """
    return {entry["name"]: entry["doc"] for entry in json.loads(core().criteria())}


def needs_weight_gradients(criterion: str) -> bool:
    """Return whether a criterion needs statistics made with ``calibrate(weight_gradients=True)``.

    False for unknown names.

    Examples
    --------
    >>> from agflow.pruning.scoring import needs_weight_gradients
    >>> needs_weight_gradients("taylor_weight"), needs_weight_gradients("agf")
    (True, False)
    """
    return any(
        entry["name"] == criterion and entry["weight_gradients"]
        for entry in json.loads(core().criteria())
    )


def score(
    statistics: Table,
    criterion: str = default("score", "criterion"),
    *,
    seed: int = default("common", "seed"),
) -> Scores:
    """Score every prunable unit by a criterion.

    Parameters
    ----------
    statistics : Statistics of :func:`agflow.calibrate`
    criterion : a name of :func:`criteria`; ``"agf"`` is U_c = E|Y_c * dL/dY_c| (arXiv 2603.12354)
    seed : used by ``"random"`` only

    Raises
    ------
    InvalidValueError
        Unknown criterion; the message lists the known ones.
    UnknownLayerError
        The criterion needs sums or weights that the statistics do not have.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=64)
    >>> statistics = agflow.calibrate(model, DataLoader(images, batch_size=32))
    >>> scores = agflow.score(statistics, "magnitude")
    >>> scores.criterion, bool((scores.of("blocks.0.mlp") > 0).all())
    ('magnitude', True)
    """
    batch = Statistics.of_any(statistics).batch
    return Scores(arrow.call_for_batch(core().score, criterion, seed, batch))
