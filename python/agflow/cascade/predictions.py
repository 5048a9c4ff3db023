"""Predictions of both experts on the same images, with the priors that can route them.

Shape suffixes: N images, C features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch

from agflow._core import arrow
from agflow._core.loader import core
from agflow.cascade.ensemble import combine, fit_light_weight
from agflow.cascade.ledger import CascadeCosts, cost_text
from agflow.cascade.priors import (
    AGREEMENT,
    LOGIT_PRIORS,
    MAX_PROBABILITY,
    SCALED_SUFFIX,
    agreement,
    fit_temperature,
    priors,
)
from agflow.data.batches import check_labels, read_labels
from agflow.errors import InvalidValueError, ShapeError
from agflow.table import Table

PART = 1 << 20
"""Rows that are compared at a time: of many rows even a mask would be large."""


class Predictions(Table):
    """Predictions of a light and a heavy expert on the same images, one row an image.

    Columns: label int64, light_prediction int64, light_prior float32 (maximum softmax probability),
    heavy_prediction int64; then a float32 column ``prior_NAME`` for every other prior, higher where
    the light expert is more confident: margin (difference of the two greatest probabilities),
    entropy (sum of p log p, the negative entropy), energy (T log-sum-exp of the logits over T, the
    temperature, which is 1 where it is not scaled), each also with ``_scaled`` behind it, from
    logits over ``temperature``; where they were recorded, l1_norm of the features, agreement of a
    second view (:func:`agflow.cascade.agreement`) and others.
    ensemble_prediction int64, where it was recorded, is the class by the ensemble of both experts
    with ``light_weight`` (:func:`agflow.cascade.combine`).

    Metadata: the costs of both experts, of the blocks they share and of a second view, and their
    unit; temperature and light weight; sketches of the images and of those that tuned the experts.

    Examples
    --------
    >>> import agflow, torch
    >>> logits_NK = torch.eye(3)
    >>> predictions = agflow.cascade.join_predictions(
    ...     logits_NK.roll(1, 0), logits_NK, torch.arange(3), agflow.cascade.CascadeCosts(20, 100)
    ... )
    >>> predictions.light_accuracy, predictions.heavy_accuracy
    (0.0, 1.0)
    """

    kind = "predictions"

    @property
    def light_accuracy(self) -> float:
        """Top-1 accuracy of the light expert, in [0, 1]."""
        return self._accuracy("light_prediction")

    @property
    def heavy_accuracy(self) -> float:
        """Top-1 accuracy of the heavy expert, in [0, 1]."""
        return self._accuracy("heavy_prediction")

    def _accuracy(self, column: str) -> float:
        """Share of the labels that a column has, a part of the rows at a time."""
        answers_N, labels_N = self.columns[column], self.columns["label"]
        correct = sum(
            np.count_nonzero(answers_N[at : at + PART] == labels_N[at : at + PART])
            for at in range(0, len(self), PART)
        )
        return int(correct) / len(self) if len(self) else math.nan

    @property
    def priors(self) -> list[str]:
        """Names of the priors that were recorded."""
        others = [name for name in self.columns if name.startswith("prior_")]
        return [self.metadata["agflow.prior"], *(name.removeprefix("prior_") for name in others)]

    def prior(self, name: str) -> np.ndarray:
        """Return the column of a prior, float32 [N].

        Raises
        ------
        InvalidValueError
            It was not recorded.
        """
        if name == self.metadata["agflow.prior"]:
            return self.columns["light_prior"]
        if name not in self.priors:
            raise InvalidValueError(
                f"the predictions have no prior {name!r}; they have {', '.join(self.priors)}"
            )
        return self.columns[f"prior_{name}"]

    @cached_property
    def costs(self) -> CascadeCosts:
        """Costs of one image."""
        value = lambda name: float(self.metadata.get(f"agflow.{name}", 0))
        return CascadeCosts(
            value("light_cost"),
            value("heavy_cost"),
            value("shared_cost"),
            value("second_view_cost"),
            self.metadata["agflow.cost_unit"],
        )

    @property
    def temperature(self) -> float:
        """Temperature of the logits behind the priors named ``*_scaled``."""
        return float(self.metadata.get("agflow.temperature", 1.0))

    @property
    def light_weight(self) -> float:
        """Weight of the light expert in ``ensemble_prediction``; 0 where there is none."""
        return float(self.metadata.get("agflow.light_weight", 0.0))

    def _summary(self) -> str:
        if not len(self):
            return "0 images"
        return (
            f"{len(self)} images, light {100 * self.light_accuracy:.1f} %, "
            f"heavy {100 * self.heavy_accuracy:.1f} %, priors {', '.join(self.priors)}"
        )

    def _html_rows(self) -> tuple[Sequence, Iterable[Sequence]]:
        accuracies = {"light": self.light_accuracy, "heavy": self.heavy_accuracy}
        rows = [
            (
                f"{expert} expert",
                f"{100 * accuracy:.2f} %",
                cost_text(getattr(self.costs, expert), self.costs.unit),
            )
            for expert, accuracy in accuracies.items()
        ]
        return ("", "top-1 accuracy", "cost per image"), rows


@dataclass(frozen=True)
class FixedParameters:
    """Parameters of scaled priors and ensemble that are given; what is None is fitted.

    Attributes
    ----------
    temperature : of the logits behind the scaled priors; None fits it
        (:func:`agflow.cascade.fit_temperature`)
    light_weight : weight of the light expert in the ensemble; None fits it
        (:func:`agflow.cascade.fit_light_weight`)

    Examples
    --------
    >>> import agflow
    >>> agflow.cascade.FixedParameters(temperature=1.0)
    FixedParameters(temperature=1.0, light_weight=None)
    """

    temperature: float | None = None
    light_weight: float | None = None


@dataclass(frozen=True, eq=False)
class ExtraPriors:
    """What priors are made of beside the light expert's logits.

    Attributes
    ----------
    features_NC : the light expert's last features, for the prior ``l1_norm``
    second_view_NK : logits of a second view, for the prior ``agreement``
    recorded : further priors by name, float32 [N], higher where the light expert is more confident

    Examples
    --------
    >>> import agflow, numpy
    >>> extra = agflow.cascade.ExtraPriors(recorded={"sharpness": numpy.ones(3, numpy.float32)})
    """

    features_NC: torch.Tensor | None = None
    second_view_NK: torch.Tensor | None = None
    recorded: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageSketches:
    """Sketches (:func:`agflow.data.sketch_images`) that show whether a router is calibrated on
    images that tuned an expert; "" where none was made.

    Attributes
    ----------
    images : of the predicted images
    tuning : of the images that tuned the experts

    Examples
    --------
    >>> import agflow
    >>> agflow.cascade.ImageSketches()
    ImageSketches(images='', tuning='')
    """

    images: str = ""
    tuning: str = ""


NOTHING_FIXED, NO_EXTRA_PRIORS, NO_SKETCHES = FixedParameters(), ExtraPriors(), ImageSketches()


def join_predictions(
    light_NK: torch.Tensor,
    heavy_NK: torch.Tensor,
    labels_N: torch.Tensor,
    costs: CascadeCosts,
    *,
    fixed: FixedParameters = NOTHING_FIXED,
    extra: ExtraPriors = NO_EXTRA_PRIORS,
    sketches: ImageSketches = NO_SKETCHES,
) -> Predictions:
    """Make the predictions table of both experts' logits on the same images.

    Experts of different classes have no ``ensemble_prediction``.

    Parameters
    ----------
    light_NK, heavy_NK : logits, float32 [N, K], of the same images in the same order
    labels_N : class numbers [N]
    costs : of one image
    fixed : temperature and light weight that are given; for test images the router's
    extra : what further priors are made of
    sketches : of these images, and of those that tuned the experts

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    ShapeError, DtypeError, InvalidValueError
        The logits, labels or priors are of different numbers of images, or labels are no class
        numbers of the experts.

    Examples
    --------
    >>> import agflow, torch
    >>> labels_N = torch.arange(300) % 3
    >>> right_NK = torch.nn.functional.one_hot(labels_N, 3).float()
    >>> noise_NK = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    >>> agflow.cascade.join_predictions(
    ...     right_NK + noise_NK, 9 * right_NK, labels_N, agflow.cascade.CascadeCosts(20, 100)
    ... ).heavy_accuracy
    1.0
    """
    labels_N = read_labels(labels_N)
    _check(light_NK, heavy_NK, labels_N, extra)
    light_prediction, plain = priors(light_NK)
    heavy_prediction, _ = priors(heavy_NK, expert="heavy expert")
    columns = {
        "label": labels_N.cpu().numpy(),
        "light_prediction": light_prediction,
        "light_prior": plain[MAX_PROBABILITY],
        "heavy_prediction": heavy_prediction,
    }
    light_weight, temperature = fixed.light_weight, fixed.temperature
    if light_NK.shape != heavy_NK.shape:
        light_weight = None
    elif light_weight is None:
        light_weight = fit_light_weight(light_NK, heavy_NK, labels_N)
    if light_weight is not None:
        columns["ensemble_prediction"], _ = priors(combine(light_NK, heavy_NK, light_weight))
    if temperature is None:
        temperature = fit_temperature(light_NK, labels_N)
    others = {name: plain[name] for name in LOGIT_PRIORS[1:]}
    if temperature is not None:
        _, scaled = priors(light_NK, temperature)
        others |= {name + SCALED_SUFFIX: values for name, values in scaled.items()}
    others |= _extra_columns(light_NK, extra)
    columns |= {f"prior_{name}": np.asarray(values, np.float32) for name, values in others.items()}
    metadata = _metadata(
        costs, temperature, light_weight, sketches, second_view=extra.second_view_NK is not None
    )
    schema = pa.schema(
        [(name, pa.from_numpy_dtype(column.dtype)) for name, column in columns.items()], metadata
    )
    return Predictions(
        pa.record_batch([pa.array(column) for column in columns.values()], schema=schema)
    )


def _number(cost: float) -> str:
    """A cost as files have it, whole numbers as such; it reads back as the same bits."""
    cost = float(cost)
    return str(int(cost)) if cost.is_integer() and abs(cost) < 2**53 else repr(cost)


def _check(
    light_NK: torch.Tensor, heavy_NK: torch.Tensor, labels_N: torch.Tensor, extra: ExtraPriors
) -> None:
    """Check that all is of the same number of images, and labels of the experts' classes."""
    rows = {"light_NK": light_NK, "heavy_NK": heavy_NK, "labels_N": labels_N, **extra.recorded}
    rows |= {"features_NC": extra.features_NC, "second_view_NK": extra.second_view_NK}
    lengths = {name: len(values) for name, values in rows.items() if values is not None}
    if len(set(lengths.values())) > 1 or light_NK.ndim != 2 or heavy_NK.ndim != 2:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ShapeError(
            f"the rows are {found}, expected logits [images, classes] and as many rows of each: "
            "pass the answers of all to the same images in the same order"
        )
    check_labels(labels_N, max(light_NK.shape[1], heavy_NK.shape[1]))


def _extra_columns(light_NK: torch.Tensor, extra: ExtraPriors) -> dict[str, np.ndarray]:
    found = {}
    if extra.features_NC is not None:
        norms = arrow.call_for_array(core().feature_norms, arrow.matrix(extra.features_NC))
        found["l1_norm"] = norms.to_numpy()
    if extra.second_view_NK is not None:
        found[AGREEMENT] = agreement(light_NK, extra.second_view_NK)
    return {**found, **extra.recorded}


def _metadata(
    costs: CascadeCosts,
    temperature: float | None,
    light_weight: float | None,
    sketches: ImageSketches,
    *,
    second_view: bool,
) -> dict[str, str]:
    found = {
        "agflow.kind": Predictions.kind,
        "agflow.prior": MAX_PROBABILITY,
        "agflow.light_cost": _number(costs.light),
        "agflow.heavy_cost": _number(costs.heavy),
        "agflow.shared_cost": _number(costs.shared),
        "agflow.cost_unit": costs.unit,
    }
    if temperature is not None and temperature != 1.0:
        found["agflow.temperature"] = repr(temperature)
    if light_weight is not None:
        found["agflow.light_weight"] = repr(float(light_weight))
    if second_view:
        found["agflow.second_view_cost"] = _number(costs.second_view)
    if sketches.images:
        found["agflow.images"] = sketches.images
    if sketches.tuning:
        found["agflow.tuning"] = sketches.tuning
    return found
