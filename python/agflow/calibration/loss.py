"""The loss whose gradients a calibration measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from agflow.calibration.image_draws import directions
from agflow.calibration.options import CalibrationOptions
from agflow.calibration.own_answers import drawn_labels
from agflow.data.batches import Batch, image_batches, labelled_batches
from agflow.errors import InvalidValueError, NonFiniteError, ShapeError
from agflow.models import ChannelGroup, final_hidden, head_of, model_logits, model_name
from agflow.models.callables import function_name
from agflow.models.classifier import watched
from agflow.models.forward import as_taken, checked_logits, model_output

LABELS = "labels"
"""The loss that is the cross entropy of the labels."""
SELF = "self"
"""The cross entropy of labels drawn from the model's own softened answers."""
FEATURES = "features"
"""A random direction of the final hidden state, which needs no classifier."""
Loss = str | Callable[[nn.Module, Batch], torch.Tensor]
"""``LABELS``, ``SELF``, ``FEATURES``, or a function of a model and a batch that returns the loss of
each image, [B]."""


def batches_for(loss: Loss, loader: Iterable, total: int) -> Iterator[Batch]:
    """The batches of a loader, at most ``total``; of ``SELF`` and ``FEATURES`` the images alone."""
    if loss not in (SELF, FEATURES):
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
    if loss not in (LABELS, SELF, FEATURES) and not callable(loss):
        raise InvalidValueError(
            f"loss is {loss!r:.60}, expected {LABELS!r}, {SELF!r}, {FEATURES!r} or a function "
            "loss(model, batch) that returns the loss of each image, [B]"
        )
    if loss == FEATURES:
        return "a random direction of the normalised final hidden state, sum over the batch"
    name = function_name(loss) if callable(loss) else "cross_entropy"
    if loss == SELF:
        name += f" of labels drawn from its own answers at temperature {options.temperature:g}"
    return f"{name}, sum over the batch"


class SummedLoss:
    """The losses of the images of a batch, summed, so that none depends on the others.

    Parameters
    ----------
    images_BCHW : of the first batch
    options : ``nonfinite="skip"`` leaves NaN to those who see its gradient; ``temperature`` and
        ``seed`` are those of ``SELF``, ``seed`` that of ``FEATURES``
    """

    def __init__(
        self,
        loss: Loss,
        model: nn.Module,
        images_BCHW: torch.Tensor,
        options: CalibrationOptions,
    ):
        self._loss, self._model, self._options = loss, model, options
        # That of the logits' losses shows in the first pass that they need anyway.
        self._head = None
        if loss == FEATURES:
            self._head = head_of(model, images_BCHW)
            self._head.check_sure(model_name(model))

    def of(self, batch: Batch) -> torch.Tensor:
        """The sum over a batch, a scalar.

        Raises
        ------
        ShapeError, InvalidValueError, NonFiniteError
            A function returned no loss for each image, one that does not depend on the model, or
            NaN.
        UnsupportedModelError
            The loss needs a classifier, and the model has none.
        """
        loss, model, options = self._loss, self._model, self._options
        if callable(loss):
            return _of_function(loss, model, batch, options)
        if loss == FEATURES:
            assert self._head is not None
            hidden = final_hidden(model, batch.images, self._head)
            return hidden_loss(hidden, batch.images, options.seed)
        logits_BK = self._logits(batch.images)
        if loss == SELF:
            drawn_B = drawn_labels(logits_BK, batch.images, options.temperature, options.seed)
            return per_image_loss(logits_BK, drawn_B)
        return per_image_loss(logits_BK, batch.labels.to(as_taken(model, batch.images).device))

    def _logits(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """The logits [B, K] of a model that has a classifier."""
        if self._head is not None:
            return model_logits(self._model, images_BCHW)
        output, self._head = watched(self._model, lambda: model_output(self._model, images_BCHW))
        need, cure = f"loss={self._loss!r} needs logits", f"calibrate with loss={FEATURES!r}"
        self._head.check(model_name(self._model), need, cure)
        return checked_logits(self._model, output, len(images_BCHW))


def _of_function(
    loss: Callable[[nn.Module, Batch], torch.Tensor],
    model: nn.Module,
    batch: Batch,
    options: CalibrationOptions,
) -> torch.Tensor:
    images_BCHW = as_taken(model, batch.images)
    labels_B = batch.labels.to(images_BCHW.device)
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


def hidden_loss(hidden: torch.Tensor, images_BCHW: torch.Tensor, seed: int) -> torch.Tensor:
    """Project the normalised final hidden state of each image on a random direction; their sum.

    With h the hidden state of an image, all of its numbers in a row, and r a direction drawn for
    the image, L = <r, h / |h|>. Its gradient at a unit y_c is that of a random projection of the
    unit's Jacobian J_c, and so the utility E|y_c · ∂L/∂y_c| is, up to a factor that is the same for
    all units, E|J_c y_c|: how far the direction of the features turns, to first order, when the
    unit is set to zero. (The mean of |<r, v>| over directions r is a fixed multiple of |v|: random
    projections, as of Hutchinson, Communications in Statistics 1989.) It is no error, and does not
    vanish where the model is trained to its optimum.

    Parameters
    ----------
    hidden : [B, ...], see :func:`agflow.models.final_hidden`
    images_BCHW : as the loader gave them; with ``seed`` they decide the directions

    Returns
    -------
    scalar

    Examples
    --------
    >>> import torch
    >>> from agflow.calibration.loss import hidden_loss
    >>> images, hidden = torch.rand(2, 1, 4, 4), torch.randn(2, 8)
    >>> torch.allclose(hidden_loss(3 * hidden, images, 0), hidden_loss(hidden, images, 0))
    True
    """
    wide_BF = hidden.flatten(1).to(torch.promote_types(hidden.dtype, torch.float32))
    drawn_BF = directions(images_BCHW, wide_BF.shape[1], seed).to(wide_BF)
    return (F.normalize(wide_BF, dim=1) * drawn_BF).sum()


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
