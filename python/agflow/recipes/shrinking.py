"""A smaller model in one call: calibrate, plan, prune and repair, measured on other images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.devices import device_of, first_parameter
from agflow._utils.modes import preserve_training_mode
from agflow._utils.ranks import Ranks
from agflow.calibration.calibration import calibrate
from agflow.calibration.loss import FEATURES, LABELS as BY_LABELS, SELF, Loss
from agflow.calibration.options import CalibrationOptions
from agflow.data.batches import image_batches
from agflow.data.datasets import load_dataset
from agflow.data.held_out_images import SplitImages, split_images
from agflow.errors import InvalidValueError
from agflow.evaluation.accuracy import top1
from agflow.evaluation.agreement import evaluate_agreement
from agflow.evaluation.timing import Timing, time_models
from agflow.models import Head, adapter_for, count_params, head_of, model_logits, model_name
from agflow.models.account import check_values, examined
from agflow.models.callables import function_name, unwrapped
from agflow.models.head import known_classes
from agflow.models.noting import sized_by
from agflow.models.passes import LABELS, run_models
from agflow.models.preprocessing import preprocessing_of
from agflow.pruning.allocation import Allocation
from agflow.pruning.least_squares import check_compensation
from agflow.pruning.planning import Plan, plan
from agflow.pruning.pruner import check_dtype, prune
from agflow.pruning.scoring import needs_weight_gradients
from agflow.recipes.shrink_report import DENSE, LIGHT, ShrinkReport
from agflow.training.replay import seeded

TIMED_IMAGES = 64
TIMED_BATCH = 32


@dataclass(frozen=True)
class ShrinkOptions:
    """How :func:`agflow.shrink` calibrates, plans and prunes.

    Attributes
    ----------
    batches, batch_size : of the calibration, at most, and images of each
    groups : of :func:`agflow.calibrate`: units that may be removed
    loss : of :func:`agflow.calibrate`. None chooses by what is there: ``"labels"`` where the images
        have labels and the model a classifier, ``"self"`` without labels, ``"features"`` without a
        classifier
    criterion, allocation : of :func:`agflow.plan`
    compensate : of :func:`agflow.prune`
    held_out : share of the images that measures the result and calibrates nothing, in (0, 1)

    Raises
    ------
    InvalidValueError
        A value is out of range.

    Examples
    --------
    >>> from agflow.recipes import ShrinkOptions
    >>> ShrinkOptions(groups=["mlp"]).batches
    20
    """

    batches: int = default("calibrate", "batches")
    batch_size: int = default("common", "batch_size")
    groups: Sequence[str] = default("calibrate", "groups")
    loss: Loss | None = None
    criterion: str = default("score", "criterion")
    allocation: Allocation = Allocation()
    compensate: str = default("prune", "compensate")
    held_out: float = default("shrink", "held_out")

    def __post_init__(self) -> None:
        for name in ("batches", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not 0 < self.held_out < 1:
            raise InvalidValueError(
                f"held_out is {self.held_out}, expected a share of the images between 0 and 1"
            )
        check_compensation(self.compensate)


def shrink(
    model: nn.Module,
    images: Any,
    *,
    macs: float | str | None = None,
    params: float | str | None = None,
    pruning_ratio: float | None = None,
    options: ShrinkOptions = ShrinkOptions(),
    report: Callable[[ShrinkReport], object] | None = print,
    seed: int = default("common", "seed"),
) -> nn.Module:
    """Return a smaller copy of ``model``: calibrate, plan, prune and repair, in one call.

    A part of the images is held out: it measures the accuracy of both models and their agreement
    (:func:`agflow.evaluation.evaluate_agreement`) and calibrates nothing. Neither labels nor a
    classifier are needed: the loss is chosen by what is there, and the report says which.

    Parameters
    ----------
    model : float32, of a family that an adapter knows; left as it is
    images : a dataset of images or (image, label), a DataLoader, an iterable of batches
        (:mod:`agflow.data.batches`), a tensor or array [N, C, H, W], a pair of such and labels [N],
        or data by name (:func:`agflow.load_dataset`), preprocessed as
        :func:`agflow.models.preprocessing_of` says. A few hundred suffice; no more than needed are
        read
    macs, params, pruning_ratio : one of them is the budget, as of :func:`agflow.plan`; for latency
        plan by a table of it
    options : how it calibrates, plans and prunes
    report : gets a :class:`agflow.recipes.ShrinkReport`; ``print`` prints it, None measures nothing
    seed : of the images that are held out, and of what else is drawn

    Returns
    -------
    the light model, on the device of ``model`` and with its training modes, ready for
    :func:`agflow.finetune`, :func:`agflow.predict`, :func:`agflow.save` and
    :class:`agflow.Cascade`

    Raises
    ------
    InvalidValueError
        No budget or several, a value out of range, several processes; and as the functions that it
        calls: :func:`agflow.calibrate`, :func:`agflow.plan`, :func:`agflow.prune`.
    BudgetError
        No plan reaches the budget.
    EmptyError
        There are fewer than two different images.
    UnsupportedModelError, DtypeError, ShapeError
        No adapter handles the model; it is not float32; the images do not fit it. Without labels
        and a loss: it could put out logits or features.

    Examples
    --------
    >>> import agflow
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=128)
    >>> reports = []
    >>> light = agflow.shrink(model, images, macs=0.5, report=reports.append)
    >>> reports[0].plan.macs_share < 0.5, reports[0].calibration, reports[0].held_out
    (True, 96, 32)
    """
    model = unwrapped(model)
    _check(model, options, macs=macs, params=params, pruning_ratio=pruning_ratio)
    with seeded(seed, device_of(model)):
        parts = _split(model, images, options, seed)
        sized_by(model, parts.calibration)
        examined(model)
        head = head_of(model, next(image_batches(parts.calibration)))
        if options.loss is None and not parts.labelled:
            head.check_sure(model_name(model))
        loss = options.loss or _loss_for(parts.labelled, head)
        start = time.perf_counter()
        statistics = calibrate(
            model,
            parts.calibration,
            batches=options.batches,
            groups=options.groups,
            loss=loss,
            weight_gradients=_needs_weight_gradients(options),
            options=CalibrationOptions(seed=seed),
        )
        chosen = plan(
            statistics,
            macs=macs,
            params=params,
            pruning_ratio=pruning_ratio,
            criterion=options.criterion,
            allocation=options.allocation,
            seed=seed,
        )
        light = prune(model, chosen, parts.calibration, compensate=options.compensate)
        seconds = time.perf_counter() - start
        if report is not None:
            report(_report(model, light, chosen, parts, head, _name(loss), seconds))
    return light


def _check(model: nn.Module, options: ShrinkOptions, **budgets: float | str | None) -> None:
    """Refuse what needs no image to be refused."""
    given = [name for name, value in budgets.items() if value is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)} were given" if given else "no budget was given"
        raise InvalidValueError(
            f"{found}, expected one of macs (such as macs=0.5), params and pruning_ratio"
        )
    if Ranks.of_process().size > 1:
        raise InvalidValueError(
            "shrink works in one process, and torchrun started several: shrink in one process and "
            "run finetune alone in several"
        )
    check_values(model)
    if not adapter_for(model).any_size:  # of others, images have to come first
        examined(model)
    check_dtype(model)


def _needs_weight_gradients(options: ShrinkOptions) -> bool:
    criteria = filter(None, (options.criterion, options.allocation.widths))
    return any(map(needs_weight_gradients, criteria))


def _split(model: nn.Module, images: Any, options: ShrinkOptions, seed: int) -> SplitImages:
    if isinstance(images, str):
        images = load_dataset(
            images,
            preprocessing=preprocessing_of(model),
            classes=known_classes(model),
            seed=seed,
        )
    return split_images(
        images,
        calibration=options.batches * options.batch_size,
        share=options.held_out,
        batch_size=options.batch_size,
        seed=seed,
    )


@dataclass(frozen=True)
class _Answered:
    """Batches of images without labels, with the answers of a model for labels."""

    images: Iterable
    model: nn.Module

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for images_BCHW in image_batches(self.images):
            with preserve_training_mode(self.model), torch.no_grad():
                answers_B = model_logits(self.model.eval(), images_BCHW).argmax(1)
            yield images_BCHW, answers_B


def _loss_for(labelled: bool, head: Head) -> str:
    """The loss that needs no more than what is there."""
    if not head.classes:
        return FEATURES
    return BY_LABELS if labelled else SELF


def _name(loss: Loss) -> str:
    return function_name(loss) if callable(loss) else loss


def _report(
    model: nn.Module,
    light: nn.Module,
    chosen: Plan,
    parts: SplitImages,
    head: Head,
    loss: str,
    seconds: float,
) -> ShrinkReport:
    return ShrinkReport(
        name=model_name(model),
        plan=chosen,
        params=count_params(light),
        dense_params=count_params(model),
        calibration=len(parts.calibration.hashes),
        seconds=seconds,
        timings=_timings(model, light, parts.held_out),
        tuning=parts.calibration.sketch,
        loss=loss,
        **_measure(model, light, parts, head),
    )


def _measure(model: nn.Module, light: nn.Module, parts: SplitImages, head: Head) -> dict[str, Any]:
    """The fields of the report that come from the held-out images."""
    if not head.classes:
        found = evaluate_agreement(light, model, parts.held_out)
        return {"held_out": found.images, "features": found}
    held_out = parts.held_out if parts.labelled else _Answered(parts.held_out, model)
    rows = run_models({DENSE: model, LIGHT: light}, held_out, description="held out")
    accuracy = {name: top1(rows[name], rows[LABELS]) for name in (LIGHT, DENSE)}
    return {
        "held_out": len(rows[LABELS]),
        "classes": rows[DENSE].shape[1],
        "accuracy": accuracy[LIGHT] if parts.labelled else None,
        "dense_accuracy": accuracy[DENSE] if parts.labelled else None,
        "agreement": top1(rows[LIGHT], rows[DENSE].argmax(1)),
    }


def _timings(model: nn.Module, light: nn.Module, held_out: Iterable) -> dict[str, Timing]:
    images_BCHW = next(image_batches(held_out))
    images_BCHW = images_BCHW.repeat(-(-TIMED_IMAGES // len(images_BCHW)), 1, 1, 1)[:TIMED_IMAGES]
    with preserve_training_mode(model, light):
        models = {DENSE: model.eval(), LIGHT: light.eval()}
        return time_models(models, images_BCHW.to(first_parameter(model)), batch=TIMED_BATCH)
