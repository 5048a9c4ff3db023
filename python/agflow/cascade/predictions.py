"""Predictions of both experts on the same images, with the priors that can route them.

Shape suffixes: N images, C features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from agflow.cascade.answers import read_answers, read_classes, read_priors
from agflow.cascade.any_arrays import check_same_index
from agflow.cascade.class_numbers import number_classes
from agflow.cascade.ledger import CascadeCosts, cost_text, read_costs
from agflow.cascade.prediction_batch import KIND, check_priors, check_rows, prediction_batch
from agflow.cascade.prediction_options import ExtraPriors, FixedParameters, ImageSketches
from agflow.errors import InvalidValueError, ShapeError
from agflow.table import Table

if TYPE_CHECKING:
    import torch

    from agflow.cascade.router import Router

NOTHING_FIXED, NO_EXTRA_PRIORS, NO_SKETCHES = FixedParameters(), ExtraPriors(), ImageSketches()
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

    kind = KIND

    @classmethod
    def of(
        cls,
        light_logits: Any,
        heavy_logits: Any,
        labels: Any,
        costs: CascadeCosts | Sequence[float],
        *,
        classes: Iterable | None = None,
        priors: Any = None,
        router: Router | None = None,
    ) -> Predictions:
        """Make predictions of what any two systems answered to the same images.

        Everything may be a numpy array, a torch tensor, a list, a frame or column of pandas or
        polars, or any Arrow array or table. torch is not imported.

        Parameters
        ----------
        light_logits, heavy_logits : logits [N, K], or probabilities, whose logarithm is taken; or
            the predicted classes [N], as numbers or names. The columns of tables are classes: both
            experts' are put in one order by their names
        labels : the class of each image [N], as a number from 0 or a name
        costs : of one image: a pair (light, heavy) of which only the ratio counts, or
            ``CascadeCosts(4.2, 17, unit="ms")``
        classes : the classes in the order of the logits' columns, where these have no names and
            the labels are names, or numbers that are no places (``classifier.classes_``)
        priors : further priors by name, each [N], higher where the light expert is more confident;
            of a light expert's classes alone at least one, the first being the one to route by
        router : for test images: its temperature and light weight are used, as
            :func:`agflow.predict` does

        Raises
        ------
        ShapeError, DtypeError, InvalidValueError, EmptyError
            The answers, labels or priors are of different numbers of images, hold missing values,
            or are no classes; the costs are none.
        NonFiniteError
            A logit or prior is NaN or infinite.

        Examples
        --------
        >>> import agflow, numpy
        >>> labels = numpy.arange(300) % 3
        >>> heavy_logits = 9.0 * numpy.eye(3)[labels]
        >>> noise = numpy.random.default_rng(0).normal(size=(300, 3))
        >>> predictions = agflow.Predictions.of(
        ...     heavy_logits / 3 + noise, heavy_logits, labels, costs=(0.25, 1.0)
        ... )
        >>> agflow.calibrate_router(predictions, tolerance=0.05).verdict
        'PASS'
        """
        given = {"light_logits": light_logits, "heavy_logits": heavy_logits, "labels": labels}
        check_same_index(given)
        light, heavy = (read_answers(given[name], name) for name in [*given][:2])
        labels_N = read_classes(labels, "labels")
        recorded = {} if priors is None else read_priors(priors, "priors")
        rows = {"light_logits": light.values, "heavy_logits": heavy.values, "labels": labels_N}
        check_rows({**rows, **recorded})
        check_priors(light.values, recorded)
        light_values, heavy_values, labels_N = number_classes(light, heavy, labels_N, classes)
        fixed = FixedParameters()
        if router is not None:
            fixed = FixedParameters(router.temperature, router.light_weight)
        extra = ExtraPriors(recorded=recorded)
        paid = read_costs(costs)
        return cls(
            prediction_batch(
                light_values, heavy_values, labels_N, paid, fixed, extra, ImageSketches()
            )
        )

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
    from agflow.data.batches import read_labels  # torch, which predictions of arrays do not need

    labels_N = read_labels(labels_N)
    _check(light_NK, heavy_NK, labels_N, extra)
    return Predictions(
        prediction_batch(light_NK, heavy_NK, labels_N.cpu().numpy(), costs, fixed, extra, sketches)
    )


def _check(
    light_NK: torch.Tensor, heavy_NK: torch.Tensor, labels_N: torch.Tensor, extra: ExtraPriors
) -> None:
    """Check that all is of the same number of images, and labels of the experts' classes."""
    from agflow.data.batches import check_labels

    rows = {"light_NK": light_NK, "heavy_NK": heavy_NK, "labels_N": labels_N, **extra.recorded}
    rows |= {"features_NC": extra.features_NC, "second_view_NK": extra.second_view_NK}
    check_rows({name: values for name, values in rows.items() if values is not None})
    if light_NK.ndim != 2 or heavy_NK.ndim != 2:
        raise ShapeError(
            f"the shapes are {tuple(light_NK.shape)} and {tuple(heavy_NK.shape)}, expected logits "
            "[images, classes]"
        )
    check_labels(labels_N, max(light_NK.shape[1], heavy_NK.shape[1]))
