"""Predictions of answers in files that other programs wrote."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from agflow.cascade.answer_files import columns_of, read_answer_file, read_content, select
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router
from agflow.data.opening import readable_name
from agflow.errors import InvalidValueError

PRIOR, LIGHT_PRIOR = "prior_", "light_prior"
COSTS = (
    "nothing says what an image costs: give the light expert's cost as a share of the heavy one's "
    "(--cost 0.25), or both (--light-cost 4.2 --heavy-cost 17 --cost-unit ms)"
)


def predictions_of_files(
    files: Mapping[str, str | None],
    costs: CascadeCosts | None,
    classes: list[str] | None = None,
    router: Router | None = None,
) -> Predictions:
    """Make predictions of files by role: light, heavy, labels and, for a light expert's predicted
    classes, light_prior.

    Parameters
    ----------
    files : FILE or FILE:COLUMN of every role
    costs : of one image; None takes the router's
    classes, router : of :meth:`agflow.Predictions.of`

    Raises
    ------
    FileError, CorruptFileError
        A file is missing, damaged, or none of those that are read.
    InvalidValueError, ShapeError, DtypeError, NonFiniteError
        As :meth:`agflow.Predictions.of`; or nothing says what an image costs.
    """
    paid = costs or _costs_of(router)
    if paid is None:
        raise InvalidValueError(COSTS)
    given = {
        role: read_answer_file(spec, "label" if role == "labels" else role)
        for role, spec in files.items()
        if spec
    }
    priors = None
    if LIGHT_PRIOR in given:
        prior = given[LIGHT_PRIOR]
        priors = prior if isinstance(prior, dict) else {LIGHT_PRIOR: prior}
    return Predictions.of(
        given["light"],
        given["heavy"],
        given["labels"],
        paid,
        classes=classes,
        priors=priors,
        router=router,
    )


def predictions_of_table(
    path: str | os.PathLike,
    costs: CascadeCosts | None,
    classes: list[str] | None = None,
    router: Router | None = None,
) -> Predictions:
    """Make predictions of one table with the columns label, light_*, heavy_* and, where there are
    further priors, light_prior and prior_*.

    Raises
    ------
    FileError, CorruptFileError, InvalidValueError, ShapeError, DtypeError, NonFiniteError
        As :func:`predictions_of_files`.
    """
    table = read_content(path)
    if isinstance(table, np.ndarray):
        raise InvalidValueError(
            f"{readable_name(path)} holds one array, expected a table with the columns label, "
            "light_* and heavy_*: give --light, --heavy and --labels for arrays"
        )
    names = [*table] if isinstance(table, dict) else table.schema.names
    known = _metadata(table)
    if known.get("agflow.kind") == Predictions.kind and "agflow.light_cost" in known and not costs:
        return Predictions(table)
    paid = costs or _costs_of(router)
    if paid is None:
        raise InvalidValueError(f"{readable_name(path)}: {COSTS}")
    answers = {
        role: select(table, columns_of(names, role, os.fspath(path)))
        for role in ("light", "heavy", "label")
    }
    return Predictions.of(
        answers["light"],
        answers["heavy"],
        answers["label"],
        paid,
        classes=classes,
        priors=_priors(table, names, answers["light"]) or None,
        router=router,
    )


def _costs_of(router: Router | None) -> CascadeCosts | None:
    """The costs that a router was calibrated with, for test images."""
    return None if router is None else router.ledger.costs


def _metadata(table: Any) -> dict[str, str]:
    found = (table.schema.metadata or {}) if isinstance(table, pa.Table) else {}
    return {key.decode(): value.decode(errors="replace") for key, value in found.items()}


def _priors(table: Any, names: list[str], light: Any) -> dict[str, Any]:
    """Columns of priors by their names; those of logits follow from these."""
    column = lambda name: table[name]
    found = {}
    logits = not isinstance(light, dict) or len(light) > 1
    if LIGHT_PRIOR in names and not logits:
        found[_metadata(table).get("agflow.prior", LIGHT_PRIOR)] = column(LIGHT_PRIOR)
    found |= {name[len(PRIOR) :]: column(name) for name in names if name.startswith(PRIOR)}
    return found
