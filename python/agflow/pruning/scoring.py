"""Score prunable units by the criteria of the Go core."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from agflow._core import arrow
from agflow._core.loader import core
from agflow._utils.defaults import default
from agflow.calibration.statistics import Statistics
from agflow.errors import DtypeError, NonFiniteError, ShapeError
from agflow.models.callables import function_name
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


def criterion_name(criterion: str | Callable) -> str:
    """The name that a criterion is recorded by: a function's is that of its module and its own.

    Examples
    --------
    >>> from agflow.pruning.scoring import criterion_name
    >>> criterion_name("agf")
    'agf'
    """
    return function_name(criterion) if callable(criterion) else criterion


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
    criterion: str | Callable[[Statistics], Any] = default("score", "criterion"),
    *,
    seed: int = default("common", "seed"),
) -> Scores:
    """Score every prunable unit by a criterion.

    Parameters
    ----------
    statistics : Statistics of :func:`agflow.calibrate`
    criterion : a name of :func:`criteria`; ``"agf"`` is U_c = E|Y_c * dL/dY_c| (arXiv 2603.12354).
        Or a function of the Statistics that returns one finite score a row, [units], larger ones
        for units to keep; it is recorded by its module and name
    seed : used by ``"random"`` only

    Raises
    ------
    InvalidValueError
        Unknown criterion; the message lists the known ones.
    ShapeError, DtypeError, NonFiniteError
        A function returned something else than one finite number a unit.
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
    >>> def mean_gradient_flow(statistics):
    ...     return statistics["sum_abs_yg"] / statistics["rows"]
    >>> own = agflow.score(statistics, mean_gradient_flow)
    >>> bool((own["score"] == agflow.score(statistics, "agf")["score"]).all())
    True
    """
    statistics = Statistics.of_any(statistics)
    if callable(criterion):
        return scores_of(statistics, criterion, seed)
    return Scores(arrow.call_for_batch(core().score, criterion, seed, statistics.batch))


def scores_of(
    statistics: Statistics, criterion: Callable[[Statistics], Any], seed: int = 0
) -> Scores:
    """The scores that a function gives every unit."""
    name = function_name(criterion)
    values = _values(name, criterion(statistics), len(statistics))
    # The table of a criterion that needs nothing has the rows and the metadata of any other.
    like = arrow.call_for_batch(core().score, "random", seed, statistics.batch)
    scored = like.set_column(like.schema.get_field_index("score"), "score", pa.array(values))
    metadata = {**like.schema.metadata, b"agflow.criterion": name.encode()}
    return Scores(scored.replace_schema_metadata(metadata))


def _values(name: str, values: Any, units: int) -> np.ndarray:
    """What a criterion returned, float64 [units]."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    found = np.asarray(values)
    if found.dtype.kind not in "fiub":
        raise DtypeError(
            f"criterion {name} returned {type(values).__name__} of {found.dtype}, expected "
            f"{units} numbers, one a row of the statistics"
        )
    if found.shape != (units,):
        raise ShapeError(
            f"criterion {name} returned the shape {list(found.shape)}, expected [{units}]: one "
            "score a row of the statistics"
        )
    if not np.isfinite(found).all():
        raise NonFiniteError(
            f"criterion {name} returned NaN or infinity for {(~np.isfinite(found)).sum()} of "
            f"{units} units, expected finite scores: check what it divides by"
        )
    return found.astype(np.float64)
