"""What every step of a run works on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from torch import nn
from torch.utils.data import DataLoader, Dataset

from agflow._utils.defaults import default
from agflow.data.augmentation import shifting_batch
from agflow.data.loading import image_loader
from agflow.data.preprocessing import Preprocessing
from agflow.recipes.results import RunOptions
from agflow.recipes.splits import Splits
from agflow.training.cached_views import CachedViews, bytes_an_image
from agflow.training.features import has_last_block

EPOCHS_A_VIEW = default("run", "epochs_a_view")
VIEWS_BYTES = default("data", "cache_bytes")


@dataclass(frozen=True)
class RunParts:
    """The heavy expert and the images of a run, and its options.

    Attributes
    ----------
    name : of the model
    """

    options: RunOptions
    name: str
    heavy: nn.Module
    preprocessing: Preprocessing
    splits: Splits

    def loader(self, dataset: Dataset) -> DataLoader:
        """The batches of a data set, in its order."""
        return image_loader(dataset, self.options.batch_size, workers=self.options.workers)

    def augmented(self, shuffle_seed: int | None = None) -> DataLoader:
        """The images that train, moved and mirrored anew in every pass."""
        return image_loader(
            self.splits.tune,
            self.options.batch_size,
            workers=self.options.workers,
            shuffle_seed=shuffle_seed,
            collate=shifting_batch,
        )

    @cached_property
    def views(self) -> CachedViews | None:
        """Views of these images with the heavy expert's answers, from which all experts learn.

        None where they would take too much memory: the heavy expert then answers every batch.
        """
        images, tokens = self.augmented(), has_last_block(self.heavy)
        views = math.ceil(self.options.epochs / EPOCHS_A_VIEW)
        needed = bytes_an_image(self.heavy, images, tokens=tokens) * len(self.splits.tune) * views
        if needed > VIEWS_BYTES:
            return None
        return CachedViews.of(
            self.heavy,
            images,
            views=views,
            tokens=tokens,
            batch_size=self.options.batch_size,
            seed=self.options.seed,
        )
