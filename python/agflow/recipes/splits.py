"""The images of a run by use: no image serves two of fine-tuning, threshold and test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import Subset

from agflow.data.datasets import Dataset, load_dataset
from agflow.data.options import DataOptions
from agflow.data.preprocessing import Preprocessing
from agflow.errors import EmptyError, InvalidValueError
from agflow.models.head import known_classes
from agflow.recipes.results import RunOptions

THRESHOLD_SHARE = 0.4  # of the images, the last ones in the shuffled order


@dataclass(frozen=True)
class Splits:
    """The images of a run by use.

    Attributes
    ----------
    source : of the first three
    calibration : measure the units and repair the pruned model; the first of ``tune``
    tune : train the light expert
    threshold : calibrate the router
    test : evaluate, and are used for nothing else
    """

    source: Dataset
    calibration: Subset
    tune: Subset
    threshold: Subset
    test: Dataset

    @property
    def counts(self) -> dict[str, int]:
        """Number of images by use, in the words of the report."""
        return {
            "calibration": len(self.calibration),
            "fine-tuning": len(self.tune),
            "threshold": len(self.threshold),
            "test": len(self.test),
        }


def split_images(options: RunOptions, preprocessing: Preprocessing, heavy: nn.Module) -> Splits:
    """Shuffle the data once by the seed and split them; the test images are other data.

    Raises
    ------
    InvalidValueError
        The test images are the data that train.
    EmptyError
        There are too few images.
    """

    def load(spec: str, limit: int | None) -> Dataset:
        return load_dataset(
            spec,
            preprocessing=preprocessing,
            limit=limit,
            seed=options.seed,
            classes=known_classes(heavy),
            options=DataOptions(options.label, options.image_column, options.class_map),
        )

    if options.eval == options.data:
        raise InvalidValueError(
            f"data and eval are both {options.data}: give test images that nothing else has seen"
        )
    source = load(options.data, options.limit)
    order = torch.randperm(
        len(source), generator=torch.Generator().manual_seed(options.seed)
    ).tolist()
    tuned = round(len(order) * (1 - THRESHOLD_SHARE))
    if not 0 < tuned < len(order):
        raise EmptyError(
            f"{options.data} has {len(order)} images, expected at least 2: some tune the light "
            "expert, others calibrate the threshold"
        )
    calibrating = min(tuned, options.batches * options.batch_size)
    return Splits(
        source,
        calibration=Subset(source, order[:calibrating]),
        tune=Subset(source, order[:tuned]),
        threshold=Subset(source, order[tuned:]),
        test=load(options.eval, options.eval_limit),
    )
