"""One pass of several models over the images of a loader.

All models see a batch before the next one is read, so that row i of every result is of the same
image, whatever the loader shuffles or augments, and although it may be read only once.

Shape suffixes: B images of a batch, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import nn

from agflow._utils.modes import preserve_training_mode, without_gradients
from agflow.data.batches import check_labels, labelled_batches
from agflow.data.shares import Shares
from agflow.models.callables import as_module
from agflow.models.classifier import watched
from agflow.models.forward import check_finite, checked_logits, model_logits, model_output
from agflow.models.noting import note_images
from agflow.models.registry import model_name

LABELS = "labels"
Rows = dict[str, torch.Tensor]
"""Named rows of a batch or of all images: tensors of the same length on the CPU."""


@without_gradients
def run_models(
    models: Mapping[str, nn.Module | Callable],
    loader: Iterable,
    *,
    description: str,
    rows_of: Callable[[torch.Tensor], Rows] | None = None,
) -> Rows:
    """Run all models in evaluation mode over every batch of ``loader``, read once.

    Under ``torchrun``, where the loader's sampler deals images to the ranks, each runs its share
    and all get the rows of all images, in the dataset's order.

    Parameters
    ----------
    models : modules or functions by the name of the expert, for messages
    description : of the progress bar
    rows_of : makes further rows from the images of a batch, after the models have seen it

    Returns
    -------
    by the name of the model its logits, float32 [N, K] on the CPU; ``labels`` int64 [N]; what
    ``rows_of`` made

    Raises
    ------
    EmptyError
        The loader gave no image.
    InvalidValueError, ShapeError, DtypeError
        A batch is not one of images and labels, labels are outside of the models' classes, or the
        images do not fit a model.
    UnsupportedModelError
        A model has no classifier, or puts out several things.
    NonFiniteError
        A logit is NaN or infinite.

    Examples
    --------
    >>> import agflow, torch
    >>> from agflow.models.passes import run_models
    >>> model, _, _ = agflow.load_model("example")
    >>> batches = [(torch.zeros(2, 1, 28, 28), torch.arange(2))]
    >>> rows = run_models({"one": model, "other": model}, batches, description="both")
    >>> {name: tuple(row.shape) for name, row in rows.items()}
    {'one': (2, 10), 'other': (2, 10), 'labels': (2,)}
    """

    modules = {name: as_module(model) for name, model in models.items()}
    of_batches = lambda batches: _rows(modules, batches, description, rows_of)
    return joined_rows(list(modules.values()), loader, of_batches)


@without_gradients
def joined_rows(
    models: Iterable[nn.Module], loader: Iterable, of_batches: Callable[[Iterable], Iterable[Rows]]
) -> Rows:
    """Join the rows that models in evaluation mode give of every batch of a loader, read once.

    Under ``torchrun``, where the loader's sampler deals images to the ranks, each rank runs its
    share and all get the rows of all images, in the dataset's order.

    Parameters
    ----------
    of_batches : makes rows from each of the batches that it is given

    Examples
    --------
    >>> import torch
    >>> from agflow.models.passes import joined_rows
    >>> double = lambda batches: ({"doubled": 2 * images} for images in batches)
    >>> joined_rows([], [torch.ones(2), torch.zeros(1)], double)["doubled"]
    tensor([2., 2., 0.])
    """
    models = list(models)

    def run(batches: Iterable) -> list[Rows]:
        with preserve_training_mode(*models):
            for model in models:
                model.eval()
            return list(of_batches(batches))

    shares = Shares.of(loader)
    found = run(loader) if shares is None else shares.joined(run)
    with torch.autocast("cpu", enabled=False):  # it cannot join rows in half precision
        return {name: torch.cat([rows[name] for rows in found]) for name in found[0]}


def _rows(
    models: Mapping[str, nn.Module],
    loader: Iterable,
    description: str,
    rows_of: Callable[[torch.Tensor], Rows] | None,
) -> Iterator[Rows]:
    images = 0
    for batch in labelled_batches(loader, description):
        if images == 0:
            for model in models.values():
                note_images(model, batch.images)
        rows = {}
        for name, model in models.items():
            run = _first_logits if images == 0 else model_logits
            rows[name] = run(model, batch.images).float().cpu()
            check_finite(rows[name], name, images)
        rows[LABELS] = batch.labels.cpu()
        check_labels(rows[LABELS], max(rows[name].shape[1] for name in models))
        if rows_of is not None:
            rows |= rows_of(batch.images)
        images += len(batch.images)
        yield rows


def _first_logits(model: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
    """As :func:`agflow.models.model_logits`; refuses features that look like logits."""
    output, head = watched(model, lambda: model_output(model, images_BCHW))
    head.check(
        model_name(model),
        "this needs logits",
        "compare its features with those of the dense model (evaluate_agreement, agflow evaluate "
        "--dense), or give it a classifier",
    )
    return checked_logits(model, output, len(images_BCHW))
