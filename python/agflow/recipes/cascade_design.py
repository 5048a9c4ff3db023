"""The road of ``agflow design``: images dealt out, a cascade designed, its threshold calibrated, all of it judged and kept."""

from __future__ import annotations

import itertools
import pathlib
from dataclasses import dataclass

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from agflow._utils.files import atomic_directory
from agflow.cascade.folder import CASCADE, save_cascade
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router
from agflow.cascade.router_evaluation import RouterEvaluation, evaluate_cascade
from agflow.data import datasets as data
from agflow.data.datasets import load_dataset
from agflow.errors import EmptyError, InvalidValueError
from agflow.evaluation.timing import Timing, first_images, time_models
from agflow.models.head import only_classes
from agflow.models.load import load_model
from agflow.recipes.pipeline import TIMED_BATCH, TIMED_IMAGES
from agflow.search.halving import EPOCHS, CascadeDesign, design_cascade
from agflow.search.space import SEARCHED_MACS, SearchSpace
from agflow.training.distillation import BATCH_SIZE, LR

TUNING_SHARE = 0.5  # of the images trains a design, where no others are held out
HELD_OUT_SHARES = (
    0.25,
    0.35,
)  # of the images held out choose, and calibrate the threshold; the rest judges


@dataclass(frozen=True)
class DesignOptions:
    """Options of :func:`design`; the command's flags have the same names."""

    output: str
    model: str = "example"
    weights: str | None = None
    data: str = "example:train"
    held_out: str | None = None
    classes: tuple[int, ...] = ()
    image_sizes: tuple[int, ...] = ()
    macs: tuple[float, ...] = SEARCHED_MACS
    groups: tuple[str, ...] = ("mlp", "heads")
    shared_blocks: tuple[int, ...] = (0,)
    ensemble: bool = False
    cost: str = "macs"
    epochs: int = EPOCHS
    lr: float = LR
    tolerance: float = 0.005
    confidence: float = 0.95
    batch_size: int = BATCH_SIZE
    seed: int = 0
    label: str | None = None
    limit: int | None = None


@dataclass(frozen=True)
class DesignResult:
    """A cascade on images that neither trained, chose nor calibrated it; ``timings`` are of heavy, light and cascade."""

    options: DesignOptions
    name: str
    design: CascadeDesign
    router: Router
    judgement: RouterEvaluation
    timings: dict[str, Timing]

    @property
    def summary(self) -> str:
        """What was searched, chosen, promised and found, in words."""
        speeds = ", ".join(
            f"{contender} {timing.images_per_second:.1f} ({timing.spread[0]:.1f} to {timing.spread[1]:.1f})"
            for contender, timing in self.timings.items()
        )
        router = self.router
        return (
            f"{self.design}\n"
            f"{self.options.output}: {self.name} as a cascade. {router.verdict} on {router.samples} images: {router.rule}, and the answers are then of {router.answers}\n"
            f"on {self.judgement.images} other images: {self.judgement}\n"
            f"images/s in batches of {TIMED_BATCH}, median (slowest to fastest round): {speeds}"
        )


@dataclass(frozen=True)
class _Parts:
    """Loaders of the images that train, choose, calibrate the threshold and judge."""

    tuning: DataLoader
    choosing: DataLoader
    calibrating: DataLoader
    judging: DataLoader


def design(options: DesignOptions) -> DesignResult:
    """Design a cascade, calibrate its threshold and judge it, each on images of its own.

    Fills a cascade folder (:func:`agflow.save`), with predictions-threshold.arrow, predictions.arrow (of the images
    that judge), frontier.arrow and frontier.md beside the experts.

    Raises
    ------
    AgflowError
        Any step refuses its input; the message says which and what to do. An older folder stays.
    """
    if not 0 < options.tolerance < 1:  # before the training rather than after it
        raise InvalidValueError(
            f"tolerance is {options.tolerance:g}; it is the accuracy that may be lost, above 0 and below 1, such as 0.005"
        )
    space = SearchSpace(
        image_sizes=options.image_sizes or None,
        macs=options.macs,
        groups=options.groups,
        shared_blocks=options.shared_blocks,
        ensemble=options.ensemble,
        cost=options.cost,
    )
    heavy, preprocessing, name = load_model(options.model, options.weights)
    parts = _deal(options, preprocessing, heavy.num_classes)
    if options.classes:
        heavy = only_classes(heavy, options.classes)
    with atomic_directory(options.output, "a cascade folder", CASCADE) as folder:
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
        judging, cascade = made.predict(parts.judging, router), made.cascade(router)
        save_cascade(
            cascade, folder, preprocessing=preprocessing, tuning=made.tuning, plan=made.plan
        )
        _save_evidence(folder, made, calibrating, judging)
    judgement = evaluate_cascade(cascade, parts.judging, judging)
    x = first_images(parts.judging.dataset, TIMED_IMAGES)
    timings = time_models(
        {"heavy": made.heavy, "light": made.light, "cascade": cascade}, x, batch=TIMED_BATCH
    )
    return DesignResult(options, name, made, router, judgement, timings)


def _deal(options: DesignOptions, preprocessing: data.Preprocessing, known: int) -> _Parts:
    load = lambda spec: load_dataset(
        spec,
        preprocessing=preprocessing,
        label=options.label,
        limit=options.limit,
        seed=options.seed,
        classes=known,
        only=options.classes or None,
    )
    images = load(options.data)
    tuning, held_out = (
        (images, load(options.held_out))
        if options.held_out
        else _split(images, (TUNING_SHARE,), options.seed)
    )
    parts = (tuning, *_split(held_out, HELD_OUT_SHARES, options.seed))
    return _Parts(*(DataLoader(part, batch_size=options.batch_size) for part in parts))


def _split(images: Dataset, shares: tuple[float, ...], seed: int) -> list[Subset]:
    """The images in seeded random order, dealt out by ``shares``; the last part gets what they leave."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    ends = [round(len(order) * share) for share in itertools.accumulate(shares)]
    parts = [
        Subset(images, order[start:end])
        for start, end in itertools.pairwise([0, *ends, len(order)])
    ]
    if not all(parts):
        raise EmptyError(
            f"there are {len(order)} images, too few for {len(parts)} parts: those that train, choose, calibrate the threshold and judge differ"
        )
    return parts


def _save_evidence(
    folder: pathlib.Path, made: CascadeDesign, calibrating: Predictions, judging: Predictions
) -> None:
    for file, table in (
        ("predictions-threshold", calibrating),
        ("predictions", judging),
        ("frontier", made.frontier),
    ):
        table.save(folder / f"{file}.arrow")
    (folder / "frontier.md").write_text(made.frontier.markdown())
