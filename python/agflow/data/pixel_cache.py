"""Decoded images that are kept, up to a limit of bytes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import get_worker_info


class PixelCache:
    """The first images that were decoded, as many as fit.

    Passes over a data set go through all images again and again: keeping the latest ones would
    lose each before its turn comes, keeping the first ones saves their share of every pass.

    Every worker process of a loader fills a cache of its own with its share of the limit. A pickled
    cache is empty.

    Parameters
    ----------
    images : number of images of the data set
    shape : of the uint8 pixels of an image
    limit : in bytes
    """

    def __init__(self, images: int, shape: tuple[int, ...], limit: int):
        self._images, self._shape, self._limit = images, shape, limit
        self._slot_N = torch.full((images,), -1, dtype=torch.int32)
        self._pixels: torch.Tensor | None = None  # uint8 [slots, *shape]
        self._used = 0

    def get(self, index: int) -> torch.Tensor | None:
        """The pixels of an image, None where they are not kept."""
        slot = int(self._slot_N[index])
        return None if self._pixels is None or slot < 0 else self._pixels[slot]

    def add(self, index: int, pixels: torch.Tensor) -> None:
        """Keep the pixels of an image, where they still fit."""
        worker = get_worker_info()
        limit = self._limit // (1 if worker is None else worker.num_workers)
        slots = min(self._images, limit // max(pixels.nbytes, 1))
        if self._used >= slots:
            return
        if self._pixels is None:
            self._pixels = torch.empty(slots, *self._shape, dtype=torch.uint8)
        self._pixels[self._used] = pixels
        self._slot_N[index] = self._used
        self._used += 1

    def __getstate__(self) -> dict[str, Any]:
        return {"images": self._images, "shape": self._shape, "limit": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)
