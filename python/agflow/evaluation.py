"""Logits over a loader, accuracy from logits, and wall-clock comparisons that share their noise."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from agflow.errors import EmptyError
from agflow.models import logits_of
from agflow.timing import interleaved


@torch.inference_mode()
def logits(model: nn.Module, loader: Iterable, *, description: str = "evaluate",
           progress: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Run ``model`` in evaluation mode over every batch of ``loader``.

    Returns
    -------
    logits : float32 [N, K] on the CPU
    labels : int64 [N]

    Raises
    ------
    EmptyError
        The loader gave no batch.
    """
    training = model.training
    device = next(model.parameters()).device
    model.eval()
    rows, labels = [], []
    try:
        for x, label in tqdm(loader, desc=description, disable=None if progress else True, leave=False):
            rows.append(logits_of(model(x.to(device))).float().cpu())
            labels.append(label)
    finally:
        model.train(training)
    if not rows:
        raise EmptyError("the loader gave no batch; expected at least one (images, labels) pair: check the dataset's length and limit")
    return torch.cat(rows), torch.cat(labels)


def restrict(logits_NK: torch.Tensor, labels_N: torch.Tensor, classes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keep the columns of ``classes`` (ascending) and renumber the labels to match.

    This is the accuracy of a model that knows which of its classes can occur.
    """
    return logits_NK[:, classes].contiguous(), torch.searchsorted(classes, labels_N)


def top1(logits_NK: torch.Tensor, labels_N: torch.Tensor) -> float:
    """Share of rows whose largest logit is the label, in [0, 1]."""
    return float((logits_NK.argmax(1) == labels_N).double().mean())


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy over all classes of the model, and among the classes that occur in the data."""

    top1: float
    among_present: float
    images: int
    classes: int


def accuracy(logits_NK: torch.Tensor, labels_N: torch.Tensor) -> Accuracy:
    present = labels_N.unique()
    return Accuracy(top1(logits_NK, labels_N), top1(*restrict(logits_NK, labels_N, present)), len(labels_N), len(present))


def evaluate(model: nn.Module, loader: Iterable, *, progress: bool = True) -> Accuracy:
    """Top-1 accuracy of ``model`` over ``loader`` (see :class:`Accuracy`).

    Raises
    ------
    EmptyError
        The loader gave no batch.
    """
    return accuracy(*logits(model, loader, progress=progress))


@dataclass(frozen=True)
class Timing:
    """Seconds of each round of one contender, and the images a round handles."""

    seconds: tuple[float, ...]
    images: int

    @property
    def images_per_second(self) -> float:
        return self.images / statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Slowest and fastest round, in images per second."""
        return self.images / max(self.seconds), self.images / min(self.seconds)


def first_images(dataset: Dataset, most: int) -> torch.Tensor:
    """Up to ``most`` images of a dataset of (image, label), [N, C, H, W]."""
    return torch.stack([dataset[i][0] for i in range(min(most, len(dataset)))])


@torch.inference_mode()
def race(contenders: Mapping[str, Callable[[torch.Tensor], object]], x: torch.Tensor, *, batch: int,
         rounds: int = 5) -> dict[str, Timing]:
    """Time every contender on the same images, round by round in turn, so that drift hits all alike.

    Parameters
    ----------
    x : float32 [N, C, H, W]
    batch : images per call
    """
    batches = x.split(batch)

    def round_of(call: Callable[[torch.Tensor], object]) -> Callable[[], None]:
        def run() -> None:
            for piece in batches:
                call(piece)
        return run

    times = interleaved({name: round_of(call) for name, call in contenders.items()}, rounds=rounds)
    return {name: Timing(t.seconds, len(x)) for name, t in times.items()}
