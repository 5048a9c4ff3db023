"""The images of a design by use: none serves two of tuning, choosing, calibrating and testing."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Subset

from agflow.data.datasets import Dataset, load_dataset
from agflow.data.loading import image_loader
from agflow.data.options import DataOptions
from agflow.data.preprocessing import Preprocessing
from agflow.errors import EmptyError

if TYPE_CHECKING:
    from agflow.recipes.cascade_design import DesignOptions

TUNING_SHARE = 0.5  # of the images train a design, where no others are held out
# Of the held-out images: to choose the light expert, to calibrate the threshold; the rest tests.
HELD_OUT_SHARES = (0.25, 0.35)


@dataclass(frozen=True)
class DesignImages:
    """Loaders of disjoint images, each named by what it is for.

    Attributes
    ----------
    sources : the data sets, by the names of their options
    """

    sources: dict[str, Dataset]
    tuning: DataLoader
    choosing: DataLoader
    calibrating: DataLoader
    test: DataLoader


def design_images(
    options: DesignOptions, preprocessing: Preprocessing, known: int | list[str]
) -> DesignImages:
    """Load the data and split them in seeded random order.

    Parameters
    ----------
    known : number or names of the model's classes

    Raises
    ------
    EmptyError
        There are too few images.
    """

    def load(spec: str) -> Dataset:
        return load_dataset(
            spec,
            preprocessing=preprocessing,
            limit=options.limit,
            seed=options.seed,
            classes=known,
            only=options.classes or None,
            options=DataOptions(options.label, options.image_column, options.class_map),
        )

    sources = {"data": load(options.data)}
    if options.held_out:
        sources["held_out"] = load(options.held_out)
        tuning, held_out = sources.values()
    else:
        tuning, held_out = _split(sources["data"], (TUNING_SHARE,), options.seed)
    parts = (tuning, *_split(held_out, HELD_OUT_SHARES, options.seed))
    size, workers = options.batch_size, options.workers
    return DesignImages(sources, *(image_loader(part, size, workers=workers) for part in parts))


def _split(images: Dataset | Subset, shares: tuple[float, ...], seed: int) -> list[Subset]:
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
