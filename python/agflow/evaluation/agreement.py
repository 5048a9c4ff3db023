"""How far a pruned model agrees with its dense one: answers, features and their neighbours.

Shape suffixes: B images of a batch, N images, G images of a gallery, K classes, D features.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from agflow._utils.hooks import temporary_hooks
from agflow._utils.loaders import as_raised
from agflow._utils.modes import without_gradients
from agflow.data.batches import has_labels, image_batches, labelled_batches
from agflow.errors import NonFiniteError, ShapeError
from agflow.evaluation.intervals import Estimate
from agflow.evaluation.neighbours import NEIGHBOURS, neighbours_correct
from agflow.models.exported import ExportedExpert
from agflow.models.hidden_state import Head, final_hidden, head_of
from agflow.models.last_map import tokens_of
from agflow.models.noting import note_images
from agflow.models.outputs import logits_of
from agflow.models.passes import LABELS, Rows, joined_rows
from agflow.models.registry import model_name

_MODEL, _DENSE, _COSINE, _SAME = "model", "dense", "cosine", "same"


@dataclass(frozen=True)
class NeighbourAccuracy:
    """Accuracy of the votes of nearest neighbours among the features, in [0, 1].

    Attributes
    ----------
    neighbours : that vote
    model, dense : of the features of the pruned model, and of the dense one
    difference : of the two on the same images
    """

    neighbours: int
    model: Estimate
    dense: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Agreement:
    """How far a pruned model agrees with its dense one (:func:`evaluate_agreement`).

    Attributes
    ----------
    images : that were compared
    cosine : mean of the cosines between the features of both models; None where the pruned model's
        are narrower
    answers : share of the images that both give the same class; None without classifiers
    neighbours : accuracy of nearest neighbours; None without labels

    Examples
    --------
    >>> from agflow.evaluation import Agreement, Estimate
    >>> print(Agreement(images=100, cosine=Estimate(0.9, 0.875, 0.925)))
    features: cosine 0.9000 (0.8750 to 0.9250) over 100 images
    """

    images: int
    cosine: Estimate | None = None
    answers: Estimate | None = None
    neighbours: NeighbourAccuracy | None = None

    def __str__(self) -> str:
        over, lines = f"over {self.images} images", []
        if self.answers is not None:
            lines.append(f"answers: {self.answers} equal those of the dense model {over}")
        if self.cosine is not None:
            cosine = f"{self.cosine.value:.4f} ({self.cosine.low:.4f} to {self.cosine.high:.4f})"
            lines.append(f"features: cosine {cosine} {over}")
        if self.neighbours is not None:
            found = self.neighbours
            lines.append(
                f"{found.neighbours} nearest neighbours: {found.model} correct, dense "
                f"{found.dense}, difference {found.difference}"
            )
        return "\n".join(lines)


@without_gradients
def evaluate_agreement(
    model: nn.Module, dense: nn.Module, loader: Iterable, *, gallery: Iterable | None = None
) -> Agreement:
    """Compare a pruned model with its dense one on the same images (see :class:`Agreement`).

    It needs no classifier and no labels. Features are the final hidden states
    (:func:`agflow.models.final_hidden`), whose cosine is taken over all of their numbers. Where the
    batches bring labels, each image is classified by the votes of its nearest neighbours, for which
    tokens and positions are averaged: the weighted vote of Wu et al. (arXiv 1805.01978), by
    exp(cosine / 0.07). Exported experts show no features, so that there are none of these.
    Intervals are of 95 %, over the images.

    Parameters
    ----------
    model, dense : modules; run in evaluation mode, and their training modes are left as they were
    loader : batches of images, or of (images, labels), see :mod:`agflow.data.batches`. Under
        ``torchrun``, with a ``DistributedSampler``, each rank runs its share
    gallery : batches of (images, labels) that the neighbours are searched in. None takes the images
        themselves, each classified by the others

    Raises
    ------
    EmptyError
        A loader gave no image.
    InvalidValueError, ShapeError, DtypeError
        A batch is not one of images, or does not fit a model; the models have other classes.
    UnsupportedModelError
        A model puts out no features.
    NonFiniteError
        A feature is NaN or infinite.

    Examples
    --------
    >>> import torch
    >>> from agflow.evaluation import evaluate_agreement
    >>> dense = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 2), torch.nn.Flatten())
    >>> found = evaluate_agreement(dense, dense, [torch.randn(4, 3, 4, 4)])
    >>> round(found.cosine.value, 4), found.answers, found.neighbours
    (1.0, None, None)
    """
    comparison = _Comparison(model, dense)
    rows = comparison.rows(loader)
    reference = rows if gallery is None or LABELS not in rows else comparison.rows(gallery)
    neighbours = None
    exported = any(isinstance(each, ExportedExpert) for each in (model, dense))  # no features
    if LABELS in rows and LABELS in reference and len(reference[LABELS]) > 1 and not exported:
        correct_N, dense_N = (
            neighbours_correct(
                rows[name],
                rows[LABELS],
                None if reference is rows else (reference[name], reference[LABELS]),
            ).numpy()
            for name in (_MODEL, _DENSE)
        )
        neighbours = NeighbourAccuracy(
            min(NEIGHBOURS, len(reference[LABELS]) - (reference is rows)),
            Estimate.of_share(correct_N),
            Estimate.of_share(dense_N),
            Estimate.of_difference(correct_N, dense_N),
        )
    return Agreement(
        len(rows[_MODEL]),
        Estimate.of_mean(rows[_COSINE].numpy()) if _COSINE in rows else None,
        Estimate.of_share(rows[_SAME].numpy()) if _SAME in rows else None,
        neighbours,
    )


class _Comparison:
    """Two models that see the same images."""

    def __init__(self, model: nn.Module, dense: nn.Module):
        self._models = {_MODEL: model, _DENSE: dense}
        self._heads: dict[str, Head] = {}

    def rows(self, loader: Iterable) -> Rows:
        """Of every image the features, their cosine, whether the answers are equal, the label."""
        return joined_rows(self._models.values(), loader, self._of_batches)

    def _of_batches(self, loader: Iterable) -> Iterator[Rows]:
        images = 0
        for images_BCHW, labels_B in _read(loader):
            for name, model in self._models.items():
                if name not in self._heads:
                    note_images(model, images_BCHW)
                    self._heads[name] = head_of(model, images_BCHW)
                    self._heads[name].check_sure(model_name(model))
            yield self._of_batch(images_BCHW, images) | (
                {} if labels_B is None else {LABELS: labels_B}
            )
            images += len(images_BCHW)

    def _of_batch(self, images_BCHW: torch.Tensor, first: int) -> Rows:
        hidden, answers = {}, {}
        for name, model in self._models.items():
            found, answers[name] = _hidden_and_answers(model, images_BCHW, self._heads[name])
            hidden[name] = found.float().cpu()
            _check_finite(hidden[name], model, first)
        rows = {name: _pooled(found) for name, found in hidden.items()}
        if hidden[_MODEL].shape == hidden[_DENSE].shape:
            flat = (found.flatten(1).double() for found in hidden.values())
            rows[_COSINE] = F.cosine_similarity(*flat)
        if all(head.classes for head in self._heads.values()):
            rows[_SAME] = self._same(answers)
        return rows

    def _same(self, answers: dict[str, torch.Tensor]) -> torch.Tensor:
        classes = {name: head.classes for name, head in self._heads.items()}
        if classes[_MODEL] != classes[_DENSE]:
            raise ShapeError(
                f"the model has {classes[_MODEL]} classes and the dense one {classes[_DENSE]}, "
                "expected the same: compare a pruned model with the one that it was cut from"
            )
        return answers[_MODEL] == answers[_DENSE]


def _read(loader: Iterable) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Images, and labels where the first batch has some, of every batch."""
    batches = iter(as_raised(loader))
    first = list(itertools.islice(batches, 1))
    every = itertools.chain(first, batches)
    if first and has_labels(first[0]):
        yield from ((b.images, b.labels.cpu()) for b in labelled_batches(every, "compare"))
    else:
        yield from ((images, None) for images in image_batches(every, "compare"))


def _hidden_and_answers(
    model: nn.Module, images_BCHW: torch.Tensor, head: Head
) -> tuple[torch.Tensor, torch.Tensor]:
    """The final hidden state [B, ...], and the class [B] where there is a classifier."""
    outputs: list = []
    note = model.register_forward_hook(lambda *called: outputs.append(called[-1]))
    with temporary_hooks([note]):
        hidden = final_hidden(model, images_BCHW, head)
    answers_B = logits_of(outputs[0]).argmax(1).cpu() if head.classes else torch.empty(0)
    return hidden, answers_B


def _pooled(hidden: torch.Tensor) -> torch.Tensor:
    """One vector [B, D] an image: the mean over tokens or positions."""
    return hidden if hidden.ndim == 2 else tokens_of(hidden).mean(1)


def _check_finite(hidden: torch.Tensor, model: nn.Module, first: int) -> None:
    rows = (~hidden.flatten(1).isfinite().all(1)).nonzero()[:, 0].tolist()
    if rows:
        raise NonFiniteError(
            f"the features of {model_name(model)} are NaN or infinite for {len(rows)} images (row "
            f"{first + rows[0]}), expected finite numbers: check these images and the weights"
        )
