"""Arrays of npy files and npz archives, read without trusting what they claim."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.lib import format as npy

from agflow.data.opening import open_regular, readable_name, reading
from agflow.errors import CorruptFileError

# An array may be this many times as large as its compressed bytes, and this large in any case:
# images compress to a third, empty ones to a fortieth, and what is beyond was made to fill memory.
MAX_INFLATION, ALWAYS_BYTES = 100, 64 << 20
_CHUNK_BYTES = 1 << 20


@contextmanager
def npz_archive(path: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """An npz file, opened; what cannot be read is one error."""
    with (
        reading(path, "npz file"),
        open_regular(path) as file,
        zipfile.ZipFile(file) as archive,
    ):
        yield archive


@dataclass(frozen=True)
class NpyArray:
    """An array of a file whose header was checked against the bytes that there are."""

    stream: IO[bytes]
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype

    @classmethod
    def of_stream(cls, stream: IO[bytes], size: int, name: str) -> NpyArray:
        """The array of an npy file of ``size`` bytes.

        Raises
        ------
        ValueError
            It claims more or less than it has, or holds Python objects.
        """
        version = npy.read_magic(stream)
        readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"array {name!r} has version {version} of npy, expected 1 or 2")
        shape, fortran, dtype = readers[version](stream)
        if dtype.hasobject:
            raise ValueError(f"array {name!r} holds Python objects")
        claimed, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
        if min(shape, default=1) < 0 or claimed != there:
            raise ValueError(f"array {name!r} claims {claimed} bytes and has {there}")
        return cls(stream, shape, fortran, dtype)

    @classmethod
    @contextmanager
    def member(
        cls, archive: zipfile.ZipFile, name: str, path: str | os.PathLike
    ) -> Iterator[NpyArray]:
        """An array of an archive.

        Raises
        ------
        CorruptFileError
            Its compressed bytes are far too few.
        ValueError
            As :meth:`of_stream`.
        """
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as stream:
            found = cls.of_stream(stream, info.file_size, name)
            size = math.prod(found.shape) * found.dtype.itemsize
            if size > max(ALWAYS_BYTES, MAX_INFLATION * info.compress_size):
                raise CorruptFileError(
                    f"array {name!r} of {readable_name(path)} has {size} bytes made of "
                    f"{info.compress_size}, expected at most {MAX_INFLATION} times as many: write "
                    "it uncompressed (numpy.savez) if that is right"
                )
            yield found

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
