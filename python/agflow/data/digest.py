"""Digests by which images are known again: of those that a calibration used, and of files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

import torch

from agflow._utils.tensors import raw_bytes
from agflow.data.opening import open_regular, reading

READ_BYTES = 256 << 20  # of files whose content is read
_CHUNK_BYTES = 1 << 20


def digest_of_files(paths: Sequence[str]) -> str:
    """SHA-256 by which files are known again: of their content, wherever they lie.

    Of more than ``READ_BYTES`` in all, sizes and times of change stand for the content, and names
    are those below the folder that holds all files: reading a large data set takes minutes.

    Raises
    ------
    FileError
        A file is missing or no regular file.
    """
    digest, about = hashlib.sha256(), []
    for path in paths:
        with reading(path, "file"):
            about.append(os.stat(path))
    if sum(one.st_size for one in about) > READ_BYTES:
        common = os.path.commonpath(list(map(os.path.dirname, map(os.path.abspath, paths))))
        for path, one in zip(paths, about, strict=True):
            name = os.fsencode(os.path.relpath(path, common))
            digest.update(b"%b\0%d %d\n" % (name, one.st_size, one.st_mtime_ns))
        return digest.hexdigest()
    for path, one in zip(paths, about, strict=True):
        digest.update(b"%d\n" % one.st_size)
        with open_regular(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


class ImageDigest:
    """SHA-256 of the images and labels added, the same for any batch size."""

    def __init__(self):
        self._pixels, self._labels = hashlib.sha256(), hashlib.sha256()

    def add(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        for digest, tensor in ((self._pixels, images), (self._labels, labels)):
            digest.update(raw_bytes(tensor))

    def hexdigest(self) -> str:
        return hashlib.sha256(self._pixels.digest() + self._labels.digest()).hexdigest()
