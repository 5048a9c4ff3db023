"""Batches in every form that loaders give, read in one way by every entry point.

A batch is (images, labels), or a dictionary or named tuple of them, such as transformers' collators
make. The images are floats [B, C, H, W], the labels class numbers [B]. What cannot be read as these
without guessing is refused, and the message names the batch.

Shape suffixes: B images of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

from agflow._utils.loaders import as_raised
from agflow._utils.progress import progress_bar
from agflow.data.arrays import as_tensor
from agflow.errors import AgflowError, DtypeError, EmptyError, InvalidValueError, ShapeError

IMAGE_NAMES = ("pixel_values", "images", "image", "img")
LABEL_NAMES = ("labels", "label")
LOGIT_NAMES = ("logits",)
TOKEN_NAMES = ("tokens",)
EMPTY = (
    "the loader gave no batch with images; expected at least one (images, labels) pair: "
    "check the dataset's length and limit, and that the loader can be read more than once"
)
EXPECTED = (
    "expected (images, labels), or a dictionary of them by the names "
    f"{' or '.join(IMAGE_NAMES)} and {' or '.join(LABEL_NAMES)}"
)


class Batch(NamedTuple):
    """Images of a loader with their labels.

    Attributes
    ----------
    images : float [B, C, H, W], of the loader's dtype and device
    labels : int64 [B]
    logits : float [B, K] of a teacher, where the batch brings them
    tokens : float [B, T, D] of the teacher's last block, likewise

    Examples
    --------
    >>> import torch
    >>> from agflow.data.batches import Batch
    >>> Batch(torch.zeros(2, 3, 4, 4), torch.arange(2)).labels
    tensor([0, 1])
    """

    images: torch.Tensor
    labels: torch.Tensor
    logits: torch.Tensor | None = None
    tokens: torch.Tensor | None = None


def labelled_batches(
    loader: Iterable, description: str = "", *, total: int | None = None
) -> Iterator[Batch]:
    """Yield the batches of ``loader`` that hold images.

    Parameters
    ----------
    description : of the progress bar; "" shows none
    total : number of batches, for the progress bar

    Raises
    ------
    EmptyError
        The loader gave no image.
    InvalidValueError, ShapeError, DtypeError
        A batch is not one of images and labels.

    Examples
    --------
    >>> import numpy, torch
    >>> from agflow.data.batches import labelled_batches
    >>> transformers_batch = {"pixel_values": torch.zeros(2, 3, 4, 4), "labels": numpy.arange(2)}
    >>> [batch.labels for batch in labelled_batches([transformers_batch])]
    [tensor([0, 1])]
    """
    for number, parts in _batches(loader, description, total):
        with _naming(number):
            batch = _labelled(parts)
        yield batch


def image_batches(
    loader: Iterable, description: str = "", *, total: int | None = None
) -> Iterator[torch.Tensor]:
    """Yield the images of every batch, float [B, C, H, W]; labels may be missing and are not read.

    Parameters
    ----------
    description, total : of :func:`labelled_batches`

    Raises
    ------
    EmptyError
        The loader gave no image.
    InvalidValueError, ShapeError, DtypeError
        A batch holds no images.

    Examples
    --------
    >>> import torch
    >>> from agflow.data.batches import image_batches
    >>> [len(images) for images in image_batches([torch.zeros(2, 3, 4, 4)])]
    [2]
    """
    for number, parts in _batches(loader, description, total):
        with _naming(number):
            images = read_images(parts["images"])
        yield images


def read_batch(batch: Any, number: int = 1, *, labelled: bool = True) -> Batch:
    """Read a batch of images and labels; as :func:`labelled_batches` does with those of a loader.

    Parameters
    ----------
    number : of the batch in its loader, from 1, for messages
    labelled : whether labels are read; without, the batch has none

    Raises
    ------
    EmptyError
        It holds no image.
    InvalidValueError, ShapeError, DtypeError
        It is not one of images and labels.

    Examples
    --------
    >>> import torch
    >>> from agflow.data.batches import read_batch
    >>> read_batch((torch.zeros(2, 3, 4, 4), torch.tensor([[7], [2]]))).labels
    tensor([7, 2])
    """
    with _naming(number):
        parts = _parts(batch)
        if _is_empty(parts):
            raise EmptyError("it holds no image, expected at least one: leave such batches out")
        if not labelled:
            return Batch(read_images(parts["images"]), torch.empty(0, dtype=torch.int64))
        return _labelled(parts)


def has_labels(batch: Any) -> bool:
    """Whether a batch, or an item of a dataset, brings labels beside its images."""
    return _parts(batch).get("labels") is not None


def images_in(batch: Any) -> Any:
    """The images of a batch, or the image of a dataset's item, as they are."""
    return _parts(batch)["images"]


def read_images(value: Any) -> torch.Tensor:
    """Read images from a tensor, an array or a list of them.

    Returns
    -------
    float [B, C, H, W]

    Raises
    ------
    ShapeError, DtypeError
        They have another shape, their channels last, or are no floats: raw pixels, for instance.

    Examples
    --------
    >>> import numpy
    >>> from agflow.data.batches import read_images
    >>> read_images(numpy.zeros((2, 3, 4, 4))).dtype
    torch.float64
    """
    images = as_tensor(value, "images")
    if images.ndim != 4:
        raise ShapeError(
            f"images have the shape {list(images.shape)}, expected [images, channels, height, "
            "width]: iterate over DataLoader(dataset, batch_size=…), not over the dataset, and "
            "give a single image as image[None]"
        )
    if not images.is_floating_point():
        raise DtypeError(
            f"images are {images.dtype}, expected floats: normalise pixels as in the model's "
            "training, with agflow.data.Preprocessing.normalise or the model's image processor"
        )
    if images.shape[3] in (1, 3, 4) and min(images.shape[1:3]) > 4:
        raise ShapeError(
            f"images have the shape {list(images.shape)}, with their channels last, expected "
            "[images, channels, height, width]: call images.permute(0, 3, 1, 2)"
        )
    return images


def read_labels(value: Any) -> torch.Tensor:
    """Read class numbers from a tensor, an array or a list; [B, 1] becomes [B].

    Returns
    -------
    int64 [B]

    Raises
    ------
    ShapeError, DtypeError
        They are no class numbers: one-hot, floats, booleans, names.

    Examples
    --------
    >>> from agflow.data.batches import read_labels
    >>> read_labels([[3], [1]])
    tensor([3, 1])
    """
    labels = as_tensor(value, "labels")
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ShapeError(
            f"labels have the shape {list(labels.shape)}, as one-hot or soft ones have, "
            "expected class numbers [images]: give labels.argmax(1)"
        )
    if labels.ndim != 1:
        raise ShapeError(
            f"labels have the shape {list(labels.shape)}, expected class numbers [images]"
        )
    if labels.dtype is torch.bool or labels.is_floating_point() or labels.is_complex():
        raise DtypeError(
            f"labels are {labels.dtype}, expected class numbers, whole and counted from 0: "
            "call labels.long() if they are"
        )
    return labels.to(torch.int64)


def check_labels(labels_B: torch.Tensor, classes: int) -> None:
    """Check that labels are numbers of a model's classes.

    Raises
    ------
    InvalidValueError
        One is below 0 or not below ``classes``.

    Examples
    --------
    >>> import torch
    >>> from agflow.data.batches import check_labels
    >>> check_labels(torch.tensor([0, 9]), classes=10)
    """
    if not len(labels_B):
        return
    low, high = (int(end) for end in labels_B.aminmax())
    if low < 0 or high >= classes:
        raise InvalidValueError(
            f"labels run from {low} to {high}, the model has {classes} classes (0 to "
            f"{classes - 1}): use labels of the model's own classes, counted from 0, and leave out "
            "images without a label (-1)"
        )


def check_loader(loader: Iterable) -> None:
    """Check that something can be iterated over as a loader.

    Raises
    ------
    InvalidValueError
        It cannot, or its items are no batches: a dictionary, a text.

    Examples
    --------
    >>> from agflow.data.batches import check_loader
    >>> check_loader([])
    """
    if isinstance(loader, (str, bytes, Mapping)) or not (
        hasattr(loader, "__iter__") or hasattr(loader, "__getitem__")
    ):
        raise InvalidValueError(
            f"the loader is a {type(loader).__name__}, expected a DataLoader or a list of batches: "
            "put a single batch into a list"
        )


def _batches(
    loader: Iterable, description: str, total: int | None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The number, from 1, and the parts of every batch that is not empty."""
    check_loader(loader)
    empty = True
    bar = progress_bar(loader, description, total=total, visible=bool(description))
    for number, batch in enumerate(as_raised(bar), 1):
        with _naming(number):
            parts = _parts(batch)
            empty_batch = _is_empty(parts)
        if not empty_batch:
            empty = False
            yield number, parts
    if empty:
        raise EmptyError(EMPTY)


@contextmanager
def _naming(number: int) -> Iterator[None]:
    """Put the number of the batch before the message of an error."""
    try:
        yield
    except AgflowError as error:
        raise type(error)(f"batch {number} of the loader: {error}") from error.__cause__


def _parts(batch: Any) -> dict[str, Any]:
    """The parts of a batch by name: images, and labels and logits where it has them."""
    fields = getattr(batch, "_fields", ())
    if isinstance(batch, tuple) and set(fields) & {*IMAGE_NAMES}:
        batch = dict(zip(fields, batch, strict=True))
    if isinstance(batch, Mapping):
        return _named_parts(batch)
    if isinstance(batch, (torch.Tensor, np.ndarray)):
        return {"images": batch}
    if not isinstance(batch, (tuple, list)):
        raise InvalidValueError(f"it is a {type(batch).__name__}, {EXPECTED}")
    if not batch:
        return {"images": torch.empty(0)}
    named = dict(zip(("images", "labels", "logits"), batch, strict=False))
    return named | ({"further parts": batch[3:]} if batch[3:] else {})


def _named_parts(batch: Mapping) -> dict[str, Any]:
    found = {}
    for part, names in (
        ("images", IMAGE_NAMES),
        ("labels", LABEL_NAMES),
        ("logits", LOGIT_NAMES),
        ("tokens", TOKEN_NAMES),
    ):
        name = next((name for name in names if name in batch), None)
        if name is not None:
            found[part] = batch[name]
    if "images" not in found:
        raise InvalidValueError(f"it has the keys {', '.join(map(str, batch))}, {EXPECTED}")
    return found


def _is_empty(parts: dict[str, Any]) -> bool:
    try:
        return len(parts["images"]) == 0
    except TypeError:
        return False  # what has no length is no batch, and is refused as what it is


def _labelled(parts: dict[str, Any]) -> Batch:
    if "further parts" in parts:
        raise InvalidValueError(f"it has {3 + len(parts['further parts'])} parts, {EXPECTED}")
    if parts.get("labels") is None:
        raise InvalidValueError(
            f"it holds images without labels, which are needed here: {EXPECTED}"
        )
    images, labels = read_images(parts["images"]), read_labels(parts["labels"])
    if len(images) != len(labels):
        raise ShapeError(
            f"it holds {len(images)} images and {len(labels)} labels, expected as many of both"
        )
    logits, tokens = parts.get("logits"), parts.get("tokens")
    return Batch(
        images,
        labels,
        None if logits is None else _logits(logits, len(images)),
        None if tokens is None else _tokens(tokens, len(images)),
    )


def _logits(value: Any, images: int) -> torch.Tensor:
    logits = as_tensor(value, "logits")
    if logits.ndim != 2 or len(logits) != images or not logits.is_floating_point():
        raise ShapeError(
            f"its third part is {logits.dtype} {list(logits.shape)}, expected "
            f"nothing, or a teacher's logits as floats [{images}, classes]"
        )
    return logits


def _tokens(value: Any, images: int) -> torch.Tensor:
    tokens = as_tensor(value, "tokens")
    if tokens.ndim < 3 or len(tokens) != images or not tokens.is_floating_point():
        raise ShapeError(
            f"its tokens are {tokens.dtype} {list(tokens.shape)}, expected those of a teacher's "
            f"last block as floats [{images}, tokens, channels]"
        )
    return tokens
