"""The loss whose gradients a calibration measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from agflow.calibration.options import CalibrationOptions
from agflow.calibration.own_answers import drawn_labels
from agflow.data.batches import Batch, image_batches, labelled_batches
from agflow.errors import InvalidValueError, NonFiniteError, ShapeError
from agflow.models import ChannelGroup, model_logits
from agflow.models.callables import function_name
from agflow.models.forward import as_taken

LABELS = "labels"
"""The loss that is the cross entropy of the labels."""
SELF = "self"
"""The cross entropy of labels drawn from the model's own softened answers."""
Loss = str | Callable[[nn.Module, Batch], torch.Tensor]
"""``LABELS``, ``SELF``, or a function of a model and a batch that returns the loss of each image,
[B]."""


def batches_for(loss: Loss, loader: Iterable, total: int) -> Iterator[Batch]:
    """The batches of a loader, at most ``total``; for ``SELF`` the images alone."""
    if loss != SELF:
        yield from labelled_batches(loader, "calibrate", total=total)
        return
    no_labels = torch.empty(0, dtype=torch.int64)
    for images_BCHW in image_batches(loader, "calibrate", total=total):
        yield Batch(images_BCHW, no_labels)


def loss_name(loss: Loss, options: CalibrationOptions = CalibrationOptions()) -> str:
    """The loss and how it is reduced, as the metadata ``agflow.loss`` has it.

    Raises
    ------
    InvalidValueError
        There is no loss of that name.

    Examples
    --------
    >>> from agflow.calibration.loss import loss_name
    >>> loss_name("labels")
    'cross_entropy, sum over the batch'
    """
    if loss not in (LABELS, SELF) and not callable(loss):
        raise InvalidValueError(
            f"loss is {loss!r:.60}, expected {LABELS!r}, {SELF!r} or a function loss(model, batch) "
            "that returns the loss of each image, [B]"
        )
    name = function_name(loss) if callable(loss) else "cross_entropy"
    if loss == SELF:
        name += f" of labels drawn from its own answers at temperature {options.temperature:g}"
    return f"{name}, sum over the batch"


def summed_loss(
    loss: Loss, model: nn.Module, batch: Batch, options: CalibrationOptions
) -> torch.Tensor:
    """The losses of the images of a batch, summed, so that none depends on the others.

    Parameters
    ----------
    options : ``nonfinite="skip"`` leaves NaN to those who see its gradient; ``temperature`` and
        ``seed`` are those of ``SELF``

    Raises
    ------
    ShapeError, InvalidValueError, NonFiniteError
        A function returned no loss for each image, one that does not depend on the model, or NaN.
    """
    if loss == SELF:
        logits_BK = model_logits(model, batch.images)
        drawn_B = drawn_labels(logits_BK, batch.images, options.temperature, options.seed)
        return per_image_loss(logits_BK, drawn_B)
    images_BCHW = as_taken(model, batch.images)
    labels_B = batch.labels.to(images_BCHW.device)
    if not callable(loss):
        return per_image_loss(model_logits(model, batch.images), labels_B)
    name = function_name(loss)
    loss_B = loss(model, batch._replace(images=images_BCHW, labels=labels_B))
    if not isinstance(loss_B, torch.Tensor) or loss_B.shape != labels_B.shape:
        found = list(loss_B.shape) if isinstance(loss_B, torch.Tensor) else type(loss_B).__name__
        raise ShapeError(
            f"loss {name} returned {found}, expected the loss of each image, [{len(labels_B)}]: "
            "leave out its mean or sum (reduction='none')"
        )
    if not loss_B.requires_grad or not loss_B.is_floating_point():
        raise InvalidValueError(
            f"loss {name} does not depend on the model by a gradient ({loss_B.dtype}), expected "
            "one computed from model(batch.images), without no_grad or detach"
        )
    if options.nonfinite != "skip" and not loss_B.isfinite().all():
        rows = (~loss_B.isfinite()).nonzero()[:, 0].tolist()
        raise NonFiniteError(
            f"loss {name} is NaN or infinite for {len(rows)} images of a batch (row {rows[0]}), "
            "expected finite losses: check these images, or take "
            "CalibrationOptions(nonfinite='skip')"
        )
    return loss_B.to(torch.promote_types(loss_B.dtype, torch.float32)).sum()


class Reached:
    """Passes layers to a sink and notes how many images of a batch reached each."""

    def __init__(self, layers: Sequence[ChannelGroup], sink: Callable):
        self._layers, self._sink, self._images = layers, sink, Counter[int]()

    def take(self, index: int, images: int, y_RC: torch.Tensor, g_RC: torch.Tensor) -> None:
        """Pass a layer on."""
        self._images[index] += images
        self._sink(index, images, y_RC, g_RC)

    def check(self, loss: Loss, images: int) -> None:
        """Check that each image of a batch went through every layer once.

        Raises
        ------
        InvalidValueError
            Some did not: the loss ran the model on other images, several times or in parts.
        """
        found, self._images = self._images, Counter()
        for index, layer in enumerate(self._layers):
            if callable(loss) and found[index] != images:
                raise InvalidValueError(
                    f"loss {function_name(loss)} sent {found[index]} images of a batch of {images} "
                    f"through {layer.name} and back, expected each once: call model(batch.images) "
                    "once, and let its output reach the loss"
                )


def per_image_loss(logits_BK: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """Compute the cross entropy, summed over the batch.

    A sum, so that an image's gradient does not depend on its batch; in float32 at least.

    Parameters
    ----------
    logits_BK : [B, K]
    labels_B : int64 [B], from 0 to K - 1

    Returns
    -------
    scalar

    Raises
    ------
    ShapeError
        Logits and labels do not match.
    InvalidValueError
        A label is not one of the classes.

    Examples
    --------
    >>> import torch
    >>> from agflow.calibration import per_image_loss
    >>> per_image_loss(torch.zeros(2, 10), torch.tensor([3, 7]))
    tensor(4.6052)
    """
    if logits_BK.ndim != 2 or labels_B.shape != logits_BK.shape[:1]:
        raise ShapeError(
            f"logits are {list(logits_BK.shape)} and labels {list(labels_B.shape)}, expected "
            "[images, classes] and [images]"
        )
    low, high = int(labels_B.min()), int(labels_B.max())
    if low < 0 or high >= logits_BK.shape[1]:
        raise InvalidValueError(
            f"labels run from {low} to {high}, the model has {logits_BK.shape[1]} classes: use "
            "labels of the model's own classes"
        )
    # A sum in sixteen bits would overflow or round.
    wide_BK = logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))
    return F.cross_entropy(wide_BK, labels_B, reduction="sum")
