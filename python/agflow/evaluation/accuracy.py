"""Logits of a model over a loader, and accuracy from logits.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from agflow.data.batches import check_labels, read_labels
from agflow.errors import ShapeError
from agflow.models.forward import check_finite
from agflow.models.passes import LABELS, run_models


def logits(
    model: nn.Module | Callable, loader: Iterable, *, description: str = "evaluate"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run ``model`` in evaluation mode over every batch of ``loader``.

    Under ``torchrun``, with ``DataLoader(…, sampler=DistributedSampler(dataset))``, each rank runs
    its share, and all get the logits of all images, each once and in the dataset's order.

    Parameters
    ----------
    model : any classifier of images (:func:`agflow.models.as_module`), of any floating dtype;
        images are brought to its device and dtype
    loader : batches of (images [B, C, H, W], labels [B]), see :mod:`agflow.data.batches`
    description : of the progress bar

    Returns
    -------
    logits : float32 [N, K] on the CPU
    labels : int64 [N]

    Raises
    ------
    EmptyError
        The loader gave no image.
    InvalidValueError, ShapeError, DtypeError
        A batch is not one of images and labels, labels are outside of the model's classes, or the
        images do not fit the model.
    NonFiniteError
        A logit is NaN or infinite.

    Examples
    --------
    >>> import torch
    >>> from agflow.evaluation import logits
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10))
    >>> logits_NK, labels_N = logits(model, [(torch.zeros(2, 3, 4, 4), torch.arange(2))])
    >>> logits_NK.shape, labels_N
    (torch.Size([2, 10]), tensor([0, 1]))
    """
    rows = run_models({"model": model}, loader, description=description)
    return rows["model"], rows[LABELS]


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
    """Top-1 accuracy of a model.

    Attributes
    ----------
    top1 : over all classes of the model, in [0, 1]
    among_present : among the classes that occur in the data, in [0, 1]
    images : evaluated
    classes : that occur in the data

    Examples
    --------
    >>> from agflow.evaluation import Accuracy
    >>> print(Accuracy(top1=0.5, among_present=0.75, images=8, classes=4))
    top-1 50.00 % of 8 images (75.00 % among the 4 classes that occur)
    """

    top1: float
    among_present: float
    images: int
    classes: int

    def __str__(self) -> str:
        return (
            f"top-1 {100 * self.top1:.2f} % of {self.images} images "
            f"({100 * self.among_present:.2f} % among the {self.classes} classes that occur)"
        )


def accuracy(logits_NK: torch.Tensor, labels_N: torch.Tensor) -> Accuracy:
    """Top-1 accuracy of logits that are there already (see :class:`Accuracy`).

    Raises
    ------
    InvalidValueError, ShapeError, DtypeError
        The labels are no class numbers of these logits, one an image.
    NonFiniteError
        A logit is NaN or infinite.
    """
    labels_N = read_labels(labels_N)
    if logits_NK.ndim != 2 or len(logits_NK) != len(labels_N):
        raise ShapeError(
            f"logits are {list(logits_NK.shape)} and labels {list(labels_N.shape)}, expected "
            "[images, classes] and [images]"
        )
    check_labels(labels_N, logits_NK.shape[1])
    check_finite(logits_NK, "model")
    present = labels_N.unique()
    return Accuracy(
        top1(logits_NK, labels_N),
        top1(*restrict(logits_NK, labels_N, present)),
        len(labels_N),
        len(present),
    )


def evaluate(model: nn.Module | Callable, loader: Iterable) -> Accuracy:
    """Measure the top-1 accuracy of ``model`` over ``loader`` (see :class:`Accuracy`).

    Parameters
    ----------
    model : any classifier of images (:func:`agflow.models.as_module`), of any floating dtype, run
        in evaluation mode; training modes are left as they were
    loader : batches of (images [B, C, H, W], labels [B]), see :mod:`agflow.data.batches`; under
        ``torchrun`` as for :func:`agflow.evaluation.logits`

    Raises
    ------
    AgflowError
        As :func:`agflow.evaluation.logits`: no image, a batch of another form, labels that are no
        classes of the model, logits that are not finite.

    Examples
    --------
    >>> import agflow, torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10))
    >>> agflow.evaluate(model, [(torch.zeros(2, 3, 4, 4), torch.arange(2))]).images
    2
    """
    return accuracy(*logits(model, loader))
