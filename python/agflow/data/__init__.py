"""Data: labelled images by short names, preprocessing, augmentation and overlap checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.data.augmentation import (
        random_crops as random_crops,
        random_shifts as random_shifts,
        shifting_batch as shifting_batch,
    )
    from agflow.data.datasets import Dataset as Dataset, load_dataset as load_dataset
    from agflow.data.leakage import ImageSketch as ImageSketch, sketch_images as sketch_images
    from agflow.data.loading import image_loader as image_loader
    from agflow.data.options import DataOptions as DataOptions
    from agflow.data.preprocessing import Preprocessing as Preprocessing
    from agflow.data.processors import preprocessing_like as preprocessing_like

_HOMES = {
    "DataOptions": "options",
    "Dataset": "datasets",
    "ImageSketch": "leakage",
    "Preprocessing": "preprocessing",
    "image_loader": "loading",
    "load_dataset": "datasets",
    "preprocessing_like": "processors",
    "random_crops": "augmentation",
    "random_shifts": "augmentation",
    "shifting_batch": "augmentation",
    "sketch_images": "leakage",
}
__all__ = [
    "DataOptions",
    "Dataset",
    "ImageSketch",
    "Preprocessing",
    "image_loader",
    "load_dataset",
    "preprocessing_like",
    "random_crops",
    "random_shifts",
    "shifting_batch",
    "sketch_images",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
