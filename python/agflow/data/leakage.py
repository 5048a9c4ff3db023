"""Sketches of sets of images, by which two sets are seen to overlap without keeping either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch

from agflow._utils.loaders import CallbackLoader

SIZE = 256
_VALUES = 4096  # of an image that are hashed, evenly spaced: images that agree in all of them are taken for the same


class ImageSketch:
    """The 256 smallest 64-bit hashes of a set of images (bottom-k sketch, Broder 1997), whatever their order.

    Two sketches that share a hash are of sets that share an image. The reverse is likely only: of
    two sets of n images that share s of them, the sketches share none with a probability of about
    exp(-256 s / n). An image counts as the same only as the very same values: another crop, another
    normalisation or dtype makes it another one.

    Parameters
    ----------
    text : an earlier sketch, to go on from
    """

    def __init__(self, text: str = ""):
        self._hashes = set(text.split())

    def add(self, x: torch.Tensor) -> None:
        """Add images [B, C, H, W]."""
        flat = x.detach().float().flatten(1)
        rows = flat[:, :: max(1, flat.shape[1] // _VALUES)].cpu().contiguous().numpy()
        self._hashes |= {hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in rows}
        self._hashes = set(sorted(self._hashes)[:SIZE])

    def watching(self, loader: Iterable) -> Iterable:
        """The same batches of (images, labels), each added as it passes."""
        return CallbackLoader(loader, see=lambda batch: self.add(batch[0]))

    def __str__(self) -> str:
        return " ".join(sorted(self._hashes))


def sketch_images(loader: Iterable, more: str = "") -> str:
    """The sketch of a loader's images, and of those of an earlier sketch: pass it as ``tuning`` to :func:`agflow.predict`."""
    sketch = ImageSketch(more)
    for x, _ in loader:
        sketch.add(x)
    return str(sketch)
