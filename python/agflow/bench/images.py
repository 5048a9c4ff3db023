"""The images of a benchmark by use: no image serves two of calibration, tuning and test."""

from __future__ import annotations

from typing import Protocol

from torch import nn

from agflow.data.datasets import Dataset, load_dataset
from agflow.data.options import DataOptions
from agflow.data.preprocessing import Preprocessing
from agflow.models.head import known_classes


class ImageOptions(Protocol):
    """The options of a benchmark that say which images it uses."""

    @property
    def data(self) -> str: ...
    @property
    def eval(self) -> str: ...
    @property
    def label(self) -> str | None: ...
    @property
    def seed(self) -> int: ...
    @property
    def calibration(self) -> int: ...
    @property
    def tune(self) -> int: ...
    @property
    def eval_limit(self) -> int | None: ...


def images_by_use(
    options: ImageOptions,
    preprocessing: Preprocessing,
    model: nn.Module,
) -> dict[str, Dataset]:
    """Load the images of ``"calibration"``, ``"tune"`` and ``"test"``.

    The first two are the first images of ``options.data`` and the next ones; the test images are
    those of ``options.eval``.
    """
    how = {
        "preprocessing": preprocessing,
        "seed": options.seed,
        "classes": known_classes(model),
        "options": DataOptions(options.label),
    }
    first = options.calibration
    return {
        "calibration": load_dataset(options.data, limit=first, **how),
        "tune": load_dataset(options.data, offset=first, limit=options.tune, **how),
        "test": load_dataset(options.eval, limit=options.eval_limit, **how),
    }
