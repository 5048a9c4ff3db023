"""What every step of a run works on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from torch.utils.data import DataLoader, Dataset

from agflow.data.loading import image_loader
from agflow.data.preprocessing import Preprocessing
from agflow.recipes.results import RunOptions
from agflow.recipes.splits import Splits


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
