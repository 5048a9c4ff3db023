"""``npz:FILE``: images and labels as numpy arrays in one file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from agflow.data.npy_arrays import NpyArray, npz_archive
from agflow.data.opening import readable_name
from agflow.data.source import Source
from agflow.errors import InvalidValueError


class ArrayImages:
    """Images of a uint8 array [N, H, W] or [N, H, W, C], named by their rows in the file."""

    def __init__(self, pixels: np.ndarray, rows_N: np.ndarray, array: str, path: str):
        self._pixels, self._rows_N, self._array, self.files = pixels, rows_N, array, [path]

    def name(self, index: int) -> str:
        """Array and row of an image."""
        array = f"array {self._array!r} of {readable_name(self.files[0])}"
        return f"image {self._rows_N[index]} of {array}"

    @contextmanager
    def open(self, index: int) -> Iterator[Image.Image]:
        """An image from the array."""
        yield Image.fromarray(self._pixels[index])


def read_npz(spec: str) -> Source:
    """Read the labels of FILE or FILE#PART; images are read when they are taken.

    Raises
    ------
    FileError, CorruptFileError
        The file is missing or no regular file; damaged, encrypted, or it claims more than it has.
    InvalidValueError
        An array is missing, or of another dtype or shape than images or labels have.
    """
    path, _, part = spec.partition("#")
    with npz_archive(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if not part and "x" not in names:
            part = "train"
        x_name, y_name = (f"x_{part}", f"y_{part}") if part else ("x", "y")
        for name in (x_name, y_name):
            if name not in names:
                raise InvalidValueError(
                    f"array {name!r} is not in {readable_name(path)}; it has {', '.join(names)}"
                )
        with NpyArray.member(archive, x_name, path) as images:
            shape = images.shape
        _check_images(shape, images.dtype, f"array {x_name!r} of {readable_name(path)}")
        with NpyArray.member(archive, y_name, path) as labels:
            labels_N = labels.read_all()
    labels_N = _labels(labels_N, shape[0], f"array {y_name!r} of {readable_name(path)}")

    def take(rows: np.ndarray) -> ArrayImages:
        with npz_archive(path) as archive, NpyArray.member(archive, x_name, path) as images:
            pixels = images.read_rows(rows)
        if pixels.ndim == 4 and pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
        return ArrayImages(pixels, rows, x_name, path)

    return Source(labels_N, None, take)


def _check_images(shape: tuple[int, ...], dtype: np.dtype, array: str) -> None:
    if dtype != np.uint8 or len(shape) not in (3, 4):
        raise InvalidValueError(
            f"{array} is {dtype} {shape}, expected uint8 [N, H, W] or [N, H, W, 3]: scale other "
            "values to 0 to 255"
        )
    if len(shape) == 4 and shape[3] not in (1, 3, 4):
        cure = ": move the channels with transpose(0, 2, 3, 1)" if shape[1] in (1, 3, 4) else ""
        raise InvalidValueError(
            f"{array} is uint8 {shape}, expected 1, 3 or 4 channels at the end{cure}"
        )
    if 0 in shape[1:]:
        raise InvalidValueError(f"{array} is uint8 {shape}, expected images with pixels")


def _labels(found: np.ndarray, images: int, array: str) -> np.ndarray:
    if found.shape == (images, 1):
        found = found[:, 0]
    if found.shape != (images,) or found.dtype.kind not in "iub":
        cure = ""
        if found.ndim == 2 and len(found) == images:
            cure = ": numbers of classes, such as argmax(1) of one-hot rows"
        raise InvalidValueError(
            f"{array} is {found.dtype} {found.shape}, expected {images} integers{cure}"
        )
    if found.dtype.kind == "u" and len(found) and found.max() > np.iinfo(np.int64).max:
        raise InvalidValueError(f"{array} has the label {found.max()}, expected a class")
    return found.astype(np.int64)
