"""``npz:FILE``: images and labels as numpy arrays in one file."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.lib import format as npy
from PIL import Image

from agflow.data.opening import open_regular, readable_name, reading
from agflow.data.source import Source
from agflow.errors import CorruptFileError, InvalidValueError

# An array may be this many times as large as its compressed bytes, and this large in any case:
# images compress to a third, empty ones to a fortieth, and what is beyond was made to fill memory.
MAX_INFLATION, ALWAYS_BYTES = 100, 64 << 20
_CHUNK_BYTES = 1 << 20


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
    with _archive(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if not part and "x" not in names:
            part = "train"
        x_name, y_name = (f"x_{part}", f"y_{part}") if part else ("x", "y")
        for name in (x_name, y_name):
            if name not in names:
                raise InvalidValueError(
                    f"array {name!r} is not in {readable_name(path)}; it has {', '.join(names)}"
                )
        with _Member.opened(archive, x_name, path) as images:
            shape = images.shape
        _check_images(shape, images.dtype, f"array {x_name!r} of {readable_name(path)}")
        with _Member.opened(archive, y_name, path) as labels:
            labels_N = labels.read_all()
    labels_N = _labels(labels_N, shape[0], f"array {y_name!r} of {readable_name(path)}")

    def take(rows: np.ndarray) -> ArrayImages:
        with _archive(path) as archive, _Member.opened(archive, x_name, path) as images:
            pixels = images.read_rows(rows)
        if pixels.ndim == 4 and pixels.shape[-1] == 1:
            pixels = pixels[..., 0]
        return ArrayImages(pixels, rows, x_name, path)

    return Source(labels_N, None, take)


@contextmanager
def _archive(path: str) -> Iterator[zipfile.ZipFile]:
    with (
        reading(path, "npz file"),
        open_regular(path) as file,
        zipfile.ZipFile(file) as archive,
    ):
        yield archive


@dataclass(frozen=True)
class _Member:
    """An array in an archive whose header was checked against the bytes that there are."""

    stream: IO[bytes]
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @classmethod
    @contextmanager
    def opened(cls, archive: zipfile.ZipFile, name: str, path: str) -> Iterator[_Member]:
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as stream:
            version = npy.read_magic(stream)
            readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            if version not in readers:
                raise ValueError(f"array {name!r} has version {version} of npy, expected 1 or 2")
            shape, fortran, dtype = readers[version](stream)
            if dtype.hasobject:
                raise ValueError(f"array {name!r} holds Python objects")
            claimed, there = math.prod(shape) * dtype.itemsize, info.file_size - stream.tell()
            if min(shape, default=1) < 0 or claimed != there:
                raise ValueError(f"array {name!r} claims {claimed} bytes and has {there}")
            if there > max(ALWAYS_BYTES, MAX_INFLATION * info.compress_size):
                raise CorruptFileError(
                    f"array {name!r} of {readable_name(path)} has {there} bytes made of "
                    f"{info.compress_size}, expected at most {MAX_INFLATION} times as many: write "
                    "it uncompressed (numpy.savez) if that is right"
                )
            yield cls(stream, shape, fortran, dtype)

    def read_all(self) -> np.ndarray:
        return self._shaped(self.shape, self._bytes(math.prod(self.shape) * self.dtype.itemsize))

    def read_rows(self, rows_M: np.ndarray) -> np.ndarray:
        """Some rows in their order; memory is taken for these alone."""
        if self.fortran:  # the values of a row are spread over the whole array
            return self.read_all()[rows_M]
        order_M = np.argsort(rows_M, kind="stable")
        ascending_M = rows_M[order_M]
        found = np.empty((len(rows_M), *self.shape[1:]), self.dtype)
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        step = max(1, _CHUNK_BYTES // max(row_bytes, 1))
        for first in range(0, int(rows_M.max(initial=-1)) + 1, step):
            count = min(step, self.shape[0] - first)
            chunk = self._shaped((count, *self.shape[1:]), self._bytes(count * row_bytes))
            start, end = np.searchsorted(ascending_M, [first, first + count])
            found[order_M[start:end]] = chunk[ascending_M[start:end] - first]
        return found

    def _bytes(self, count: int) -> bytes:
        read = self.stream.read(count)
        if len(read) != count:
            raise EOFError(f"it ends {count - len(read)} bytes early")
        return read

    def _shaped(self, shape: tuple[int, ...], raw: bytes) -> np.ndarray:
        return np.frombuffer(raw, self.dtype).reshape(shape, order="F" if self.fortran else "C")


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
