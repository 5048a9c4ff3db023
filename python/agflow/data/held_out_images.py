"""Images in any form that people have them, split into a part to calibrate on and one held out.

No image is in both parts. Shape suffixes: N images, B images of a batch, C, H, W of an image.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from agflow._utils.loaders import as_raised
from agflow.data.batches import (
    check_loader,
    has_labels,
    image_batches,
    images_in,
    labelled_batches,
    read_images,
)
from agflow.data.leakage import ImageSketch, image_hashes
from agflow.errors import DtypeError, EmptyError, InvalidValueError

MOST_HELD_OUT = 1000
"""Images that are held out at most: the standard error of an accuracy is then below 1.6 points."""


def hold_out(
    images: int, share: float, seed: int, most: int | None = None
) -> tuple[list[int], list[int]]:
    """Draw images to hold out: equal numbers and seeds hold the same ones out.

    Parameters
    ----------
    images : how many there are
    share : of them that are held out, in (0, 1); a smaller one holds a part of the same images out
    most : to hold out

    Returns
    -------
    numbers of the others and of those held out, in random order

    Raises
    ------
    InvalidValueError
        The share is out of range.
    EmptyError
        Fewer than two images: one part would be empty.

    Examples
    --------
    >>> from agflow.data.held_out_images import hold_out
    >>> [len(part) for part in hold_out(100, 0.25, seed=0)]
    [75, 25]
    """
    if not 0 < share < 1:
        raise InvalidValueError(f"the held-out share is {share}, expected one between 0 and 1")
    if images < 2:
        raise EmptyError(
            f"there are {images} different images, expected at least 2: some are held out from "
            "the others"
        )
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed)).tolist()
    held = min(max(1, round(share * images)), images - 1, most or images)
    return order[: images - held], order[images - held :]


@dataclass(frozen=True)
class SplitImages:
    """Two parts of the images that were given, as loaders that can be read again and again.

    Attributes
    ----------
    calibration : batches in the form of the given ones
    held_out : batches of (images, labels), or of images alone, to be read after ``calibration``:
        images that equal one of those are left out, as far as their values show
    labelled : whether the batches bring labels
    """

    calibration: RecordedImages
    held_out: Iterable
    labelled: bool


def split_images(
    images: Any, *, calibration: int, share: float, batch_size: int, seed: int
) -> SplitImages:
    """Split images into those that calibrate and those that are held out, by random numbers.

    Images that are not in a dataset, such as those of a list or a generator, are read until there
    are enough, and equal ones count once.

    Parameters
    ----------
    images : a dataset of images or (image, label), a DataLoader, any iterable of batches
        (:mod:`agflow.data.batches`), a tensor or array [N, C, H, W], or a pair of these and labels
    calibration : images to calibrate on at most
    share : of the images that is held out, at most ``MOST_HELD_OUT`` of them
    batch_size : of both parts

    Raises
    ------
    EmptyError
        There are fewer than two different images.
    InvalidValueError, ShapeError, DtypeError
        These are no images, or not as models take them.

    Examples
    --------
    >>> import torch
    >>> from agflow.data.held_out_images import split_images
    >>> images = torch.rand(12, 3, 8, 8), torch.arange(12)
    >>> parts = split_images(images, calibration=64, share=0.25, batch_size=4, seed=0)
    >>> parts.labelled, [len(labels) for _, labels in parts.calibration]
    (True, [4, 4, 1])
    """
    source = _source(images, calibration + MOST_HELD_OUT, batch_size, seed)
    kept, held = hold_out(len(source.numbers), share, seed, MOST_HELD_OUT)
    recorded = RecordedImages(source.reading(kept[:calibration], batch_size))
    labelled = has_labels(next(as_raised(recorded)))
    others = _OtherImages(source.reading(held, batch_size), recorded, labelled)
    return SplitImages(recorded, others, labelled)


class RecordedImages:
    """A loader that records which images it gave.

    Attributes
    ----------
    hashes : of the images that it gave
    """

    def __init__(self, loader: Iterable):
        self._loader = loader
        self.hashes: set[int] = set()

    def __iter__(self) -> Iterator[Any]:
        for batch in as_raised(self._loader):
            self.hashes.update(image_hashes(read_images(images_in(batch))).tolist())
            yield batch

    @property
    def sketch(self) -> str:
        """Sketch of the images that it gave (:class:`agflow.data.ImageSketch`)."""
        sketch = ImageSketch()
        sketch.add_hashes(torch.tensor(sorted(self.hashes), dtype=torch.int64))
        return str(sketch)


class _OtherImages:
    """The images of a loader that another one did not give."""

    def __init__(self, loader: Iterable, others: RecordedImages, labelled: bool):
        self._loader, self._others, self._labelled = loader, others, labelled

    def __iter__(self) -> Iterator[Any]:
        empty = True
        for images, labels in _read(self._loader, self._labelled):
            fresh = [number not in self._others.hashes for number in image_hashes(images).tolist()]
            if any(fresh):
                empty = False
                yield images[fresh] if labels is None else (images[fresh], labels[fresh])
        if empty:
            raise EmptyError(
                "every image that was held out equals one that calibrated: give more images that "
                "differ"
            )


def _read(loader: Iterable, labelled: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """Images, and labels where there are some, of every batch."""
    if labelled:
        return ((batch.images, batch.labels) for batch in labelled_batches(loader))
    return ((images, None) for images in image_batches(loader))


@dataclass(frozen=True)
class _Source:
    """A dataset, the numbers of its items that may be read, and how a loader reads them."""

    dataset: Any
    numbers: Sequence[int]
    options: dict[str, Any] = field(default_factory=dict)

    def reading(self, part: list[int], batch_size: int) -> DataLoader:
        items = [self.numbers[number] for number in part]
        batches = [items[start : start + batch_size] for start in range(0, len(items), batch_size)]
        return DataLoader(self.dataset, batch_sampler=batches, **self.options)


def _source(images: Any, wanted: int, batch_size: int, seed: int) -> _Source:
    if isinstance(images, DataLoader) and not isinstance(images.dataset, IterableDataset):
        if images.batch_sampler is not None:
            return _of_loader(images)
    elif isinstance(images, IterableDataset):
        images = DataLoader(images, batch_size)
    elif _is_one_batch(images):
        images = _shuffled_rows(images, batch_size, seed)
    elif _is_dataset(images):
        return _Source(images, range(len(images)), {"collate_fn": _collate})
    elif isinstance(images, (list, tuple)):
        images = random.Random(seed).sample(images, len(images))
    check_loader(images)
    return _in_memory(images, wanted)


def _shuffled_rows(batch: Any, batch_size: int, seed: int) -> Iterator[Any]:
    """Small batches of the rows of a large one, in random order."""
    images, labels = next(_read([batch], has_labels(batch)))
    generator = torch.Generator().manual_seed(seed)
    for rows in torch.randperm(len(images), generator=generator).split(batch_size):
        yield images[rows] if labels is None else (images[rows], labels[rows])


def _of_loader(loader: DataLoader) -> _Source:
    """The images that a DataLoader's sampler gives, each once, read as the loader reads them."""
    numbers = dict.fromkeys(number for batch in loader.batch_sampler or () for number in batch)
    workers = loader.num_workers
    options = {
        "collate_fn": loader.collate_fn,
        "num_workers": workers,
        "pin_memory": loader.pin_memory,
        "worker_init_fn": loader.worker_init_fn,
        "multiprocessing_context": loader.multiprocessing_context if workers else None,
        "prefetch_factor": loader.prefetch_factor,
    }
    return _Source(loader.dataset, list(numbers), options)


def _is_one_batch(images: Any) -> bool:
    """Whether these are images [N, C, H, W], with labels or alone, and no list of batches."""
    if isinstance(images, Mapping):
        return True
    if isinstance(images, (tuple, list)) and len(images) == 2:
        return _axes(images[0]) == 4 and _axes(images[1]) in (1, 2)
    return isinstance(images, (torch.Tensor, np.ndarray))


def _axes(value: Any) -> int | None:
    return value.ndim if isinstance(value, (torch.Tensor, np.ndarray)) else None


def _is_dataset(images: Any) -> bool:
    """Whether these are single images by number, as a dataset or a list holds them."""
    if isinstance(images, str) or not (
        hasattr(images, "__getitem__") and hasattr(images, "__len__") and len(images)
    ):
        return False
    image = images_in(images[0])
    if not isinstance(image, (torch.Tensor, np.ndarray, list, tuple)):
        raise DtypeError(
            f"image 0 is a {type(image).__module__}.{type(image).__name__}, expected a tensor "
            "[channels, height, width] of floats: give the dataset a transform that normalises "
            "as in the model's training"
        )
    return np.ndim(image) == 3


def _collate(items: list) -> Any:
    """A batch of a dataset's items; what an item has beside image and label is left out."""
    first = items[0]
    if isinstance(first, (tuple, list)) and len(first) > 2 and not hasattr(first, "_fields"):
        items = [tuple(item[:2]) for item in items]
    return default_collate(items)


class _Memory(Dataset):
    """Images in memory, each once."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._items: list[tuple[torch.Tensor, ...]] = []

    def add(self, images: torch.Tensor, labels: torch.Tensor | None) -> None:
        parts = (images,) if labels is None else (images, labels)
        for number, *item in zip(image_hashes(images).tolist(), *parts, strict=True):
            if number not in self._hashes:
                self._hashes.add(number)
                self._items.append(tuple(item))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return self._items[index]


def _in_memory(loader: Iterable, wanted: int) -> _Source:
    """The first ``wanted`` different images of a loader."""
    batches: Iterator[Any] = as_raised(loader)
    first = list(itertools.islice(batches, 1))
    labelled = bool(first) and has_labels(first[0])
    memory = _Memory()
    for images, labels in _read(itertools.chain(first, batches), labelled):
        memory.add(images, labels)
        if len(memory) >= wanted:
            break
    return _Source(memory, range(len(memory)))
