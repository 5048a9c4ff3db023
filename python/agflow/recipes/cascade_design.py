"""The pipeline of ``agflow design``: split images, design a cascade, calibrate and evaluate it."""

from __future__ import annotations

import itertools
import pathlib
from dataclasses import dataclass
from html import escape

import torch
from torch.utils.data import DataLoader, Subset

from agflow._utils.computing import Computing
from agflow._utils.defaults import default
from agflow._utils.folders import atomic_folder, check_folder
from agflow.cascade.cascade_evaluation import evaluate_cascade
from agflow.cascade.ensemble import HEAVY_ANSWERS
from agflow.cascade.folder import CASCADE_FOLDER, write_cascade
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router
from agflow.cascade.router_evaluation import RouterEvaluation
from agflow.cascade.verdict import Verdict
from agflow.data import datasets as data
from agflow.data.datasets import load_dataset
from agflow.data.loading import image_loader
from agflow.data.options import DataOptions
from agflow.errors import EmptyError, InvalidValueError
from agflow.evaluation.timing import Timing, first_images, time_models
from agflow.models.fitting import request_check
from agflow.models.head import known_classes, only_classes
from agflow.models.load import image_options, load_model
from agflow.recipes.pipeline import TIMED_BATCH, TIMED_IMAGES
from agflow.recipes.results import verdict_of
from agflow.search.design import CascadeDesign
from agflow.search.halving import design_cascade
from agflow.search.space import SearchSpace

TUNING_SHARE = 0.5  # of the images train a design, where no others are held out
# Of the held-out images: to choose the light expert, to calibrate the threshold; the rest tests.
HELD_OUT_SHARES = (0.25, 0.35)


@dataclass(frozen=True)
class DesignOptions:
    """Options of :func:`design`; the command's flags have the same names.

    Attributes
    ----------
    output : the cascade folder to make
    model, weights : heavy expert (:func:`agflow.load_model`)
    data, held_out : data sets (:func:`agflow.load_dataset`); without ``held_out``, half of ``data``
        is held out
    classes : classes to keep; () keeps all
    image_sizes, macs, groups, shared_blocks, ensemble, cost : :class:`agflow.search.SearchSpace`;
        no image size stands for its default
    epochs, lr, seed : :func:`agflow.design_cascade`
    tolerance, confidence : :func:`agflow.calibrate_router`
    batch_size : of all loaders
    limit : :func:`agflow.load_dataset`
    label, image_column, class_map : :class:`agflow.data.DataOptions`
    mean, std : of the images' channels, where they are not known of the model
    crop, crop_mode, interpolation : of the images, in place of what is known of the model
        (:func:`agflow.load_model`)
    device, dtype : where the models compute, and in which precision: float32 or bfloat16
    workers : processes that decode images

    Raises
    ------
    InvalidValueError
        The tolerance is not above 0 and below 1.

    Examples
    --------
    >>> import agflow
    >>> agflow.recipes.DesignOptions(output="designed", image_sizes=(16, 20)).model
    'example'
    """

    output: str
    model: str = default("common", "model")
    weights: str | None = None
    data: str = default("common", "data")
    held_out: str | None = None
    classes: tuple[int, ...] = ()
    image_sizes: tuple[int, ...] = ()
    macs: tuple[float, ...] = default("design", "macs")
    groups: tuple[str, ...] = default("calibrate", "groups")
    shared_blocks: tuple[int, ...] = default("design", "shared_blocks")
    ensemble: bool = default("route", "ensemble")
    cost: str = default("design", "cost")
    epochs: int = default("design", "epochs")
    lr: float = default("design", "lr")
    tolerance: float = default("route", "tolerance")
    confidence: float = default("route", "confidence")
    batch_size: int = default("common", "batch_size")
    seed: int = default("common", "seed")
    label: str | None = None
    image_column: str | None = None
    class_map: str | None = None
    mean: tuple[str, ...] = ()
    std: tuple[str, ...] = ()
    crop: float | None = None
    crop_mode: str | None = None
    interpolation: str | None = None
    limit: int | None = None
    device: str = default("common", "device")
    dtype: str = default("common", "dtype")
    workers: int = default("common", "workers")

    def __post_init__(self):
        if not 0 < self.tolerance < 1:  # refused before the training rather than after it
            raise InvalidValueError(
                f"tolerance is {self.tolerance:g}, expected an accepted loss of accuracy above 0 "
                "and below 1, such as 0.005"
            )

    @property
    def computing(self) -> Computing:
        """Where the models compute, and in which precision."""
        return Computing(self.device, self.dtype)

    @property
    def space(self) -> SearchSpace:
        """The candidates, and the cost to minimise."""
        return SearchSpace(
            image_sizes=self.image_sizes or None,
            macs=self.macs,
            groups=self.groups,
            shared_blocks=self.shared_blocks,
            ensemble=self.ensemble,
            cost=self.cost,
        )


@dataclass(frozen=True, repr=False)
class DesignResult:
    """A designed cascade, calibrated and evaluated on images of their own.

    Attributes
    ----------
    options : of the run
    name : of the model
    design, router : what was designed and calibrated
    evaluation : on the test images
    timings : images per second of ``"heavy"``, ``"light"`` and ``"cascade"``

    Examples
    --------
    See :func:`design`, which returns one.
    """

    options: DesignOptions
    name: str
    design: CascadeDesign
    router: Router
    evaluation: RouterEvaluation
    timings: dict[str, Timing]

    @property
    def counts(self) -> Verdict:
        """The verdict on both counts, of the test images and by the clock."""
        return verdict_of(self.router, self.evaluation, self.timings)

    @property
    def next(self) -> str:
        """What to do about the cascade, or with it."""
        return self.counts.next(f"serve it: agflow.Server(agflow.load('{self.options.output}'))")

    @property
    def summary(self) -> str:
        """Verdict, evaluation, router, speeds and frontier in words, and what to do next."""
        speeds = ", ".join(
            f"{contender} {timing.images_per_second:.1f} "
            f"({timing.spread[0]:.1f} to {timing.spread[1]:.1f})"
            for contender, timing in self.timings.items()
        )
        router, counts = self.router, self.counts
        return (
            f"{counts}\n{self.options.output}: {counts.meaning}\n"
            f"{self.name} as a cascade on {self.evaluation.images} test images: "
            f"{self.evaluation.figures}\n"
            f"{router.rule}, which {_answerer(router)} then answers\n"
            f"images/s in batches of {TIMED_BATCH}, median (slowest to fastest round): {speeds}, "
            f"{self.options.computing}\n"
            f"{self.design.frontier.listing}\n{self.next}"
        )

    def __repr__(self) -> str:
        return (
            f"<agflow.DesignResult: {self.options.output}: {self.counts}; "
            f"{self.evaluation.figures}>"
        )

    def _repr_html_(self) -> str:
        return (
            f"<b>{escape(self.counts.line)}</b><br>{escape(self.options.output)}: "
            f"{escape(self.counts.meaning)}{self.evaluation._repr_html_()}"
            f"{self.design._repr_html_()}{escape(self.next)}"
        )


def _answerer(router: Router) -> str:
    return "the heavy expert" if router.answers == HEAVY_ANSWERS else "the ensemble of both"


@dataclass(frozen=True)
class _Parts:
    """Loaders of disjoint images, each named by what it is for."""

    tuning: DataLoader
    choosing: DataLoader
    calibrating: DataLoader
    test: DataLoader


def design(options: DesignOptions) -> DesignResult:
    """Design a cascade, calibrate its threshold and evaluate it, each on images of its own.

    The run fills a cascade folder (:func:`agflow.save`), with predictions-threshold.arrow,
    predictions.arrow (of the test images), frontier.arrow and frontier.md beside the experts.

    Raises
    ------
    AgflowError
        Any step refuses its input; the message says which and what to do. An older folder stays.

    Examples
    --------
    >>> import agflow, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = agflow.recipes.DesignOptions(
    ...         f"{folder}/designed", limit=240, image_sizes=(16,), macs=(1.0,), epochs=1
    ...     )
    ...     result = agflow.recipes.design(options)
    >>> result.evaluation.images
    48
    """
    with options.computing.precision():
        return _design(options)


def _design(options: DesignOptions) -> DesignResult:
    space = options.space
    check_folder(options.output, CASCADE_FOLDER)  # before the training rather than after it
    check = request_check(options.groups)
    heavy, preprocessing, name = load_model(
        options.model, options.weights, check=check, **image_options(vars(options))
    )
    heavy = options.computing.move(heavy)
    parts = _parts(options, preprocessing, known_classes(heavy))
    if options.classes:
        heavy = only_classes(heavy, options.classes)
    made = design_cascade(
        heavy,
        parts.tuning,
        parts.choosing,
        tolerance=options.tolerance,
        space=space,
        epochs=options.epochs,
        lr=options.lr,
        seed=options.seed,
    )
    calibrating = made.predict(parts.calibrating)
    router = made.calibrate(calibrating, confidence=options.confidence)
    predictions, cascade = made.predict(parts.test, router), made.cascade(router)
    evaluation = evaluate_cascade(cascade, parts.test, predictions)
    x = first_images(parts.test.dataset, TIMED_IMAGES).to(options.device)
    timings = time_models(
        {"heavy": made.heavy, "light": made.light, "cascade": cascade}, x, batch=TIMED_BATCH
    )
    counts = verdict_of(router, evaluation, timings)
    kept = {"preprocessing": preprocessing, "tuning": made.tuning, "plan": made.plan}
    with atomic_folder(options.output, CASCADE_FOLDER) as folder:
        _save_tables(folder, made, calibrating, predictions, counts)
        write_cascade(cascade, folder, counts=counts, **kept)
    return DesignResult(options, name, made, router, evaluation, timings)


def _parts(
    options: DesignOptions, preprocessing: data.Preprocessing, known: int | list[str]
) -> _Parts:
    load = lambda spec: load_dataset(
        spec,
        preprocessing=preprocessing,
        limit=options.limit,
        seed=options.seed,
        classes=known,
        only=options.classes or None,
        options=DataOptions(options.label, options.image_column, options.class_map),
    )
    images = load(options.data)
    tuning, held_out = (
        (images, load(options.held_out))
        if options.held_out
        else _split(images, (TUNING_SHARE,), options.seed)
    )
    parts = (tuning, *_split(held_out, HELD_OUT_SHARES, options.seed))
    size, workers = options.batch_size, options.workers
    return _Parts(*(image_loader(part, size, workers=workers) for part in parts))


def _split(images: data.Dataset | Subset, shares: tuple[float, ...], seed: int) -> list[Subset]:
    """Split the images in seeded random order by ``shares``; the last part gets the rest."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    ends = [round(len(order) * share) for share in itertools.accumulate(shares)]
    parts = [
        Subset(images, order[start:end])
        for start, end in itertools.pairwise([0, *ends, len(order)])
    ]
    if not all(parts):
        raise EmptyError(
            f"there are {len(order)} images, too few for {len(parts)} parts, expected others to "
            "tune, to choose, to calibrate and to test: give more images"
        )
    return parts


def _save_tables(
    folder: pathlib.Path,
    made: CascadeDesign,
    calibrating: Predictions,
    predictions: Predictions,
    counts: Verdict,
) -> None:
    for file, table in (
        ("predictions-threshold", calibrating),
        ("predictions", predictions),
        ("frontier", made.frontier),
    ):
        table.save(folder / f"{file}.arrow")
    (folder / "frontier.md").write_text(made.frontier.markdown(counts), encoding="utf-8")
