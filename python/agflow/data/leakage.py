"""Sketches of sets of images, which show that two sets overlap without keeping either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch

from agflow._utils.loaders import CallbackLoader

SKETCH_HASHES = 256
# Values of an image that are hashed, evenly spaced: images that agree in them count as the same.
_HASHED_VALUES = 4096


class ImageSketch:
    """The 256 smallest 64-bit hashes of a set of images: a bottom-k sketch (Broder 1997).

    The order of the images does not matter.

    Two sketches that share a hash are of sets that share an image. The reverse is likely only: of
    two sets of n images that share s of them, the sketches share none with a probability of about
    exp(-256 s / n). An image counts as the same only as the very same values: another crop, another
    normalisation or dtype makes it another one.

    Parameters
    ----------
    text : an earlier sketch, to go on from

    Examples
    --------
    >>> import torch
    >>> from agflow.data import ImageSketch
    >>> images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> sketch = ImageSketch()
    >>> sketch.add(images)
    >>> len(str(sketch).split())
    4
    """

    def __init__(self, text: str = ""):
        self._hashes = set(text.split())

    def add(self, x: torch.Tensor) -> None:
        """Add images [B, C, H, W]."""
        flat = x.detach().float().flatten(1)
        rows = flat[:, :: max(1, flat.shape[1] // _HASHED_VALUES)].cpu().contiguous().numpy()
        self._hashes |= {hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in rows}
        self._hashes = set(sorted(self._hashes)[:SKETCH_HASHES])

    def watching(self, loader: Iterable) -> Iterable:
        """A loader of the same batches (images, labels) that adds the images of each."""
        return CallbackLoader(loader, see=lambda batch: self.add(batch[0]))

    def __str__(self) -> str:
        return " ".join(sorted(self._hashes))


def sketch_images(loader: Iterable, more: str = "") -> str:
    """Sketch a loader's images, for the ``tuning`` of :func:`agflow.predict`.

    Parameters
    ----------
    loader : batches of (images, labels)
    more : an earlier sketch, whose images are included

    Examples
    --------
    >>> import torch
    >>> from agflow.data import sketch_images
    >>> batch = torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
    >>> sketch_images([batch]) == sketch_images([batch, batch])
    True
    """
    sketch = ImageSketch(more)
    for x, _ in loader:
        sketch.add(x)
    return str(sketch)
