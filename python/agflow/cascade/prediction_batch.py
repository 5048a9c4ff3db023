"""The columns and metadata of predictions, from what both experts answered; without torch.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow.cascade.ensemble import combined_logits, fit_light_weight
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.prediction_options import ExtraPriors, FixedParameters, ImageSketches
from agflow.cascade.priors import (
    AGREEMENT,
    LOGIT_PRIORS,
    SCALED_SUFFIX,
    agreement,
    fit_temperature,
    priors,
)
from agflow.errors import InvalidValueError, ShapeError

if TYPE_CHECKING:
    import torch

KIND = "predictions"


def prediction_batch(
    light: torch.Tensor | np.ndarray,
    heavy: torch.Tensor | np.ndarray,
    labels_N: np.ndarray,
    costs: CascadeCosts,
    fixed: FixedParameters,
    extra: ExtraPriors,
    sketches: ImageSketches,
) -> pa.RecordBatch:
    """Make the record batch of predictions.

    Parameters
    ----------
    light, heavy : logits [N, K] in the memory of the CPU, or predicted classes, int64 [N]. Of a
        light expert's classes alone no prior is known: ``extra.recorded`` has at least one
    labels_N : class numbers, int64
    costs, fixed, extra, sketches : of :func:`agflow.cascade.join_predictions`

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    """
    light_classes, known = _classes_and_priors(light, "light expert")
    columns = {
        "label": labels_N,
        "light_prediction": light_classes,
        "light_prior": np.empty(0, np.float32),  # the first prior: see below
        "heavy_prediction": _classes_and_priors(heavy, "heavy expert")[0],
    }
    temperature, light_weight = fixed.temperature, fixed.light_weight
    if light.ndim == 1 or light.shape != heavy.shape:
        light_weight = None
    elif light_weight is None:
        light_weight = fit_light_weight(light, heavy, labels_N)
    if light_weight is not None:
        combined_NK = combined_logits(light, heavy, light_weight)
        columns["ensemble_prediction"], _ = priors(combined_NK)
    if light.ndim == 1:
        temperature = None
    elif temperature is None:
        temperature = fit_temperature(light, labels_N)
    if temperature is not None:
        _, scaled = priors(light, temperature)
        known |= {name + SCALED_SUFFIX: values for name, values in scaled.items()}
    known |= _extra_priors(light, extra)
    first, *others = (np.asarray(values, np.float32) for values in known.values())
    columns["light_prior"] = first
    prior, *names = known
    columns |= {f"prior_{name}": values for name, values in zip(names, others, strict=True)}
    metadata = _metadata(prior, costs, temperature, light_weight, sketches)
    if extra.second_view_NK is not None:
        metadata["agflow.second_view_cost"] = _number(costs.second_view)
    schema = pa.schema(
        [(name, pa.from_numpy_dtype(column.dtype)) for name, column in columns.items()], metadata
    )
    return pa.record_batch([pa.array(column) for column in columns.values()], schema=schema)


def check_rows(columns: Mapping[str, Sized]) -> None:
    """Check that all columns have as many rows.

    Raises
    ------
    ShapeError
        They have not.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ShapeError(
            f"the rows are {found}, expected as many of each: pass the answers of both experts to "
            "the same images in the same order"
        )


def check_priors(light: np.ndarray, recorded: Mapping[str, np.ndarray]) -> None:
    """Check that there is a prior to route by, and that none has the name of one of the logits'.

    Raises
    ------
    InvalidValueError
        It is not so.
    """
    if light.ndim == 1 and not recorded:
        raise InvalidValueError(
            "light_logits are predicted classes, and nothing says how confident the light expert "
            'is: pass priors={"confidence": values}, higher where it is more confident'
        )
    known = {name + suffix for name in LOGIT_PRIORS for suffix in ("", SCALED_SUFFIX)}
    taken = known & set(recorded) if light.ndim == 2 else None
    if taken:
        raise InvalidValueError(
            f"priors: {', '.join(sorted(taken))} follows from the logits: give yours another name"
        )


def _classes_and_priors(
    answers: torch.Tensor | np.ndarray, expert: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Predicted classes, int64 [N], and the priors of logits; given classes have none."""
    return (np.asarray(answers), {}) if answers.ndim == 1 else priors(answers, expert=expert)


def _number(cost: float) -> str:
    """A cost as files have it, whole numbers as such; it reads back as the same bits."""
    cost = float(cost)
    return str(int(cost)) if cost.is_integer() and abs(cost) < 2**53 else repr(cost)


def _extra_priors(light_NK: torch.Tensor | np.ndarray, extra: ExtraPriors) -> dict[str, np.ndarray]:
    found = {}
    if extra.features_NC is not None:
        norms = arrow.call_for_array(core().feature_norms, arrow.matrix(extra.features_NC))
        found["l1_norm"] = norms.to_numpy()
    if extra.second_view_NK is not None:
        found[AGREEMENT] = agreement(light_NK, extra.second_view_NK)
    return {**found, **extra.recorded}


def _metadata(
    prior: str,
    costs: CascadeCosts,
    temperature: float | None,
    light_weight: float | None,
    sketches: ImageSketches,
) -> dict[str, str]:
    found = {
        "agflow.kind": KIND,
        "agflow.prior": prior,
        "agflow.light_cost": _number(costs.light),
        "agflow.heavy_cost": _number(costs.heavy),
        "agflow.shared_cost": _number(costs.shared),
        "agflow.cost_unit": costs.unit,
    }
    if temperature is not None and temperature != 1.0:
        found["agflow.temperature"] = repr(temperature)
    if light_weight is not None:
        found["agflow.light_weight"] = repr(float(light_weight))
    if sketches.images:
        found["agflow.images"] = sketches.images
    if sketches.tuning:
        found["agflow.tuning"] = sketches.tuning
    return found
