"""Logits over a loader, accuracy from logits, and wall-clock comparisons that share their noise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from agflow._utils.loaders import batches_of
from agflow.models import logits_of


@torch.inference_mode()
def logits(
    model: nn.Module, loader: Iterable, *, description: str = "evaluate"
) -> tuple[torch.Tensor, torch.Tensor]:
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
        for x, label in batches_of(loader, description):
            rows.append(logits_of(model(x.to(device))).float().cpu())
            labels.append(label)
    finally:
        model.train(training)
    return torch.cat(rows), torch.cat(labels)


def restrict(
    logits_NK: torch.Tensor, labels_N: torch.Tensor, classes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
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
    return Accuracy(
        top1(logits_NK, labels_N),
        top1(*restrict(logits_NK, labels_N, present)),
        len(labels_N),
        len(present),
    )


def evaluate(model: nn.Module, loader: Iterable) -> Accuracy:
    """Top-1 accuracy of ``model`` over ``loader`` (see :class:`Accuracy`).

    Raises
    ------
    EmptyError
        The loader gave no batch.
    """
    return accuracy(*logits(model, loader))
