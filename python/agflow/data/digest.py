"""A digest of the images and labels that a calibration used."""

from __future__ import annotations

import hashlib

import torch

from agflow._utils.tensors import raw_bytes


class ImageDigest:
    """SHA-256 of the images and labels added, the same for any batch size."""

    def __init__(self):
        self._pixels, self._labels = hashlib.sha256(), hashlib.sha256()

    def add(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        for digest, tensor in ((self._pixels, images), (self._labels, labels)):
            digest.update(raw_bytes(tensor))

    def hexdigest(self) -> str:
        return hashlib.sha256(self._pixels.digest() + self._labels.digest()).hexdigest()
