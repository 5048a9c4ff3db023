"""A loader whose passes are proven to give the same images and labels in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from agflow.data.batches import Batch, labelled_batches
from agflow.data.leakage import image_hashes
from agflow.errors import InvalidValueError

_CURE = "pass a DataLoader with shuffle=False and without random augmentation, or a list of batches"


class SameImages:
    """The batches of ``loader``; a pass that differs from the first whole one is refused.

    For results of several passes that are joined by position. Every image and label is compared by
    a hash (:func:`agflow.data.leakage.image_hashes`).

    Examples
    --------
    >>> import torch
    >>> from agflow.data.repeated import SameImages
    >>> batches = SameImages([(torch.rand(2, 3, 4, 4), torch.arange(2))])
    >>> sum(1 for _ in batches), sum(1 for _ in batches)
    (1, 1)
    """

    def __init__(self, loader: Iterable):
        self._loader = loader
        self._first_N2: torch.Tensor | None = None

    def __iter__(self) -> Iterator[Batch]:
        seen, images = [], 0
        for batch in labelled_batches(self._loader):
            found_B2 = torch.stack([image_hashes(batch.images), batch.labels.cpu()], 1)
            if self._first_N2 is None:
                seen.append(found_B2)
            else:
                _compare(self._first_N2[images : images + len(found_B2)], found_B2, images)
            images += len(found_B2)
            yield batch
        if self._first_N2 is None:
            self._first_N2 = torch.cat(seen)
        elif images < len(self._first_N2):
            raise InvalidValueError(
                f"the loader gave {len(self._first_N2)} images in its first pass and {images} in "
                f"this one, expected the same ones: {_CURE}"
            )


def _compare(expected_B2: torch.Tensor, found_B2: torch.Tensor, images: int) -> None:
    if torch.equal(expected_B2, found_B2):
        return
    common = min(len(expected_B2), len(found_B2))
    differs = (expected_B2[:common] != found_B2[:common]).any(1).nonzero()
    row = images + (int(differs[0]) if len(differs) else common)
    raise InvalidValueError(
        f"the loader gave other images in its second pass: image {row} differs from that of the "
        f"first one, expected the same images and labels in the same order: {_CURE}"
    )
