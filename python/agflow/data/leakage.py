"""Sketches of sets of images, which show that two sets overlap without keeping either."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch

from agflow.data.batches import image_batches
from agflow.data.shares import Shares

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
        self.add_hashes(image_hashes(x))

    def add_hashes(self, hashes_N: torch.Tensor) -> None:
        """Add images by their hashes (:func:`image_hashes`)."""
        self._hashes |= {each.tobytes().hex() for each in hashes_N.numpy()}
        self._hashes = set(sorted(self._hashes)[:SKETCH_HASHES])

    def __str__(self) -> str:
        return " ".join(sorted(self._hashes))


def image_hashes(x: torch.Tensor) -> torch.Tensor:
    """Hash every image of [B, C, H, W]: equal values have equal hashes.

    Up to 8192 values of an image are hashed, evenly spaced.

    Returns
    -------
    int64 [B] on the CPU

    Examples
    --------
    >>> import torch
    >>> from agflow.data.leakage import image_hashes
    >>> one, same, other = image_hashes(torch.arange(3).clamp(1).reshape(3, 1, 1, 1).float())
    >>> bool(one == same), bool(one == other)
    (True, False)
    """
    flat = x.detach().float().flatten(1)
    rows = flat[:, :: max(1, flat.shape[1] // _HASHED_VALUES)].cpu().contiguous().numpy()
    digests = b"".join(hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return torch.from_numpy(np.frombuffer(bytearray(digests), np.int64))


def sketch_images(loader: Iterable, more: str = "") -> str:
    """Sketch a loader's images, for the ``tuning`` of :func:`agflow.predict`.

    Parameters
    ----------
    loader : batches of (images, labels), or of images alone
    more : an earlier sketch, whose images are included

    Raises
    ------
    EmptyError
        The loader gave no image, such as one that can be read only once.

    Examples
    --------
    >>> import torch
    >>> from agflow.data import sketch_images
    >>> batch = torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64)
    >>> sketch_images([batch]) == sketch_images([batch, batch])
    True
    """
    sketch, shares = ImageSketch(more), Shares.of(loader)

    def hashes(loader: Iterable) -> list[dict[str, torch.Tensor]]:
        return [{"hashes": image_hashes(x)} for x in image_batches(loader)]

    batches = hashes(loader) if shares is None else shares.joined(hashes)
    for rows in batches:
        sketch.add_hashes(rows["hashes"])
    return str(sketch)
