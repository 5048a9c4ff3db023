"""Whether a criterion prunes better than random choices of as many units."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agflow._core.loader import core
from agflow._core.request import request_json
from agflow._utils.defaults import default
from agflow._utils.progress import hidden_progress, progress_bar
from agflow.errors import EmptyError, InvalidValueError
from agflow.pruning.planning import plan
from agflow.table import Table

if TYPE_CHECKING:
    from torch import nn

    from agflow.pruning.planning import Plan


@dataclass(frozen=True)
class RandomControl:
    """How :func:`against_random` makes and compares the models.

    Attributes
    ----------
    draws : random models; at least 19 for a confidence of 0.95
    confidence : of the verdict, in [0.5, 1): "better" is wrong by chance at most in 1 - confidence
        of the cases
    calibration : batches of images from which each model is compensated after pruning
    compensate : kind of compensation, see :func:`agflow.prune`

    Raises
    ------
    EmptyError
        No draws.
    InvalidValueError
        A confidence out of range.

    Examples
    --------
    >>> from agflow.diagnostics import RandomControl
    >>> RandomControl(draws=99, confidence=0.99).compensate
    'none'
    """

    draws: int = 19
    confidence: float = 0.95
    calibration: Iterable | None = None
    compensate: str = "none"

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise EmptyError(f"there are {self.draws} random draws, expected at least 1")
        if not 0.5 <= self.confidence < 1:
            raise InvalidValueError(
                f"confidence is {self.confidence}, expected at least 0.5 and below 1, as 0.95"
            )


@dataclass(frozen=True)
class Verdict:
    """Whether a criterion beats random pruning here (see :func:`against_random`).

    Attributes
    ----------
    verdict : ``"better than random here"``, ``"not distinguishable from random here"`` or
        ``"insufficient draws"``
    p_value, confidence : "better" takes a p-value of at most 1 - confidence
    draws, needed_draws : random models, and the least number that can reach the confidence
    accuracy : top-1 of the criterion's model, in [0, 1]
    random_mean, random_min, random_max : top-1 of the random models, in [0, 1]
    """

    verdict: str
    p_value: float
    confidence: float
    draws: int
    needed_draws: int
    accuracy: float
    random_mean: float
    random_min: float
    random_max: float

    def __str__(self) -> str:
        more = f"; {self.needed_draws} draws would do" if self.draws < self.needed_draws else ""
        return (
            f"{self.verdict}{more}: {100 * self.accuracy:.2f} %, "
            f"random {100 * self.random_mean:.2f} % "
            f"({100 * self.random_min:.2f} to {100 * self.random_max:.2f}, {self.draws} draws), "
            f"p = {self.p_value:.3g} at confidence {self.confidence:g}"
        )


def against_random(
    model: nn.Module,
    statistics: Table,
    loader: Iterable,
    *,
    criterion: str = default("score", "criterion"),
    pruning_ratio: float = default("diagnose", "pruning_ratio"),
    control: RandomControl = RandomControl(),
    seed: int = default("common", "seed"),
) -> Verdict:
    """Prune by a criterion and by random choices of as many units, and compare the accuracies.

    Were the criterion no better than chance, its model would be as likely as any of the random ones
    to be the best: the share of models that do at least as well, p = (1 + #{random ≥ criterion}) /
    (1 + draws), is an exact test (a permutation test; Phipson and Smyth, arXiv 1603.05766). The
    verdict holds for this model, these images and this pruning ratio.

    Parameters
    ----------
    model : left as it is
    statistics : of ``model``
    loader : batches of (images, labels), read once for each of the 1 + draws models; images that
        neither the criterion nor the compensation has seen
    criterion : a name of :func:`agflow.criteria`
    pruning_ratio : share of each layer's units to remove, in (0, 1)
    control : how many random models, the confidence, and the compensation of all models
    seed : of the first random model; the next ones count on from it

    Raises
    ------
    InvalidValueError
        A number out of range, an unknown criterion, or a loader that can be read only once.
    EmptyError
        A loader without a batch.
    UnsupportedModelError, UnknownLayerError, ShapeError, DtypeError
        The model cannot be pruned, or the statistics are of another one.

    Examples
    --------
    >>> import agflow
    >>> from agflow.diagnostics import RandomControl, against_random
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> load = lambda part: DataLoader(
    ...     agflow.load_dataset(f"example:{part}", preprocessing=preprocessing, limit=64),
    ...     batch_size=32,
    ... )
    >>> statistics = agflow.calibrate(model, load("train"))
    >>> found = against_random(model, statistics, load("test"), control=RandomControl(draws=3))
    >>> found.verdict, found.needed_draws
    ('insufficient draws', 19)
    """
    for name, images in {"loader": loader, "calibration": control.calibration}.items():
        if images is not None and iter(images) is images:
            raise InvalidValueError(
                f"{name} can be read only once, but {1 + control.draws} models are "
                "compared on it: pass a DataLoader or a list of batches"
            )
    choices = [(criterion, seed), *(("random", seed + draw) for draw in range(control.draws))]
    from agflow.data.repeated import SameImages  # torch only where a model is run

    loader, counts = SameImages(loader), []
    for name, number in progress_bar(choices, "against random"):
        chosen = plan(statistics, pruning_ratio=pruning_ratio, criterion=name, seed=number)
        counts.append(_correct(model, chosen, loader, control))
    (correct, images), *random = counts
    request = {
        "images": images,
        "correct": correct,
        "random_correct": [count for count, _ in random],
        "confidence": control.confidence,
    }
    return Verdict(**json.loads(core().against_random(request_json(request))))


def _correct(
    model: nn.Module, chosen: Plan, loader: Iterable, control: RandomControl
) -> tuple[int, int]:
    """Count the images that the pruned model classifies correctly, and all images."""
    from agflow.evaluation.accuracy import logits  # torch only where a model is run
    from agflow.pruning.pruner import prune

    with hidden_progress():
        pruned = prune(model, chosen, control.calibration, compensate=control.compensate)
        logits_NK, labels_N = logits(pruned, loader)
    return int((logits_NK.argmax(1) == labels_N).sum()), len(labels_N)
