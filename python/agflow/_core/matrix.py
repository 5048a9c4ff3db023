"""A matrix in foreign memory, and the two Arrow C structs that pass it to the Go core.

A call is only microseconds away from its kernel when nothing is built per call but these structs:
pyarrow's own export takes longer than many a kernel. Go gives the structs back through a callback
that only marks them; the memory of the values and of the structs is kept alive by Python for the
whole call.
"""

from __future__ import annotations

import ctypes
import struct
from array import array
from functools import lru_cache
from typing import Any, NamedTuple

from agflow._core.loader import core


class Dtype(NamedTuple):
    """An element type: its name in numpy and torch, its size, its Arrow format."""

    name: str
    bytes: int
    arrow_format: bytes


DTYPES = {
    dtype.name: dtype
    for dtype in (
        Dtype("float32", 4, b"f"),
        Dtype("float64", 8, b"g"),
        Dtype("float16", 2, b"e"),
        Dtype("bfloat16", 2, b"S"),
    )
}  # Arrow has no bfloat16: uint16 with metadata

# A block holds, in words of 8 bytes: ArrowArray of the rows, ArrowArray of the values, ArrowSchema
# of the rows, and what they point to.
_ROWS, _VALUES, _SCHEMA, _BUFFERS, _CHILDREN = 0, 10, 20, 29, 31
_WORD = 8


class Matrix:
    """Rows of channels in memory that ``owner`` keeps alive.

    Row r begins ``r * stride`` elements after ``address``. With ``positions`` it holds maps
    instead, channel after channel: row r is position r % positions of image r // positions, images
    begin ``stride`` elements apart and their channels ``positions``.
    """

    __slots__ = ("rows", "channels", "stride", "dtype", "address", "owner", "positions")

    def __init__(
        self,
        rows: int,
        channels: int,
        stride: int,
        dtype: Dtype,
        address: int,
        owner: Any,
        positions: int = 0,
    ) -> None:
        self.rows = rows
        self.channels = channels
        self.stride = stride
        self.dtype = dtype
        self.address = address
        self.owner = owner
        self.positions = positions

    def export(self) -> tuple[int, int, Any]:
        """Addresses of the array and of the schema, and what must live until the call returns."""
        lists, width = self.rows, self.channels
        if self.positions:
            lists, width = lists // self.positions, width * self.positions
        template = _template(self.dtype, width, self.stride, self.positions)
        words = template.words[:]
        start = words.buffer_info()[0]
        words[_ROWS] = lists
        words[_ROWS + 5] = words[_VALUES + 5] = start + _BUFFERS * _WORD
        words[_ROWS + 6] = start + _CHILDREN * _WORD
        words[_VALUES] = (lists - 1) * self.stride + width if lists else 0
        words[_BUFFERS + 1] = self.address
        words[_CHILDREN] = start + _VALUES * _WORD
        return start, start + _SCHEMA * _WORD, (words, template, self.owner)


class _Template:
    """The block that matrices of one dtype, width of a list, stride and positions share.

    Rows and addresses differ by matrix and are filled in by :meth:`Matrix.export`.
    """

    def __init__(self, dtype: Dtype, width: int, stride: int, positions: int) -> None:
        self._kept: list[Any] = []
        release = core().release_address()
        # struct ArrowArray: length, null_count, offset, n_buffers, n_children, buffers, children,
        # dictionary, release, private_data
        rows_array = [0, 0, 0, 1, 1, 0, 0, 0, release, 0]
        values_array = [0, 0, 0, 2, 0, 0, 0, 0, release, 0]
        # struct ArrowSchema: format, name, metadata, flags, n_children, children, dictionary,
        # release, private_data
        values_schema = self._words(
            self._text(dtype.arrow_format), self._text(b"item"), 0, 0, 0, 0, 0, release, 0
        )
        rows_schema = [
            *(self._text(b"+w:%d" % width), 0, self._metadata(dtype, width, stride, positions)),
            *(0, 1, self._words(values_schema), 0, release, 0),
        ]
        buffers = [0, 0]  # no validity bitmap, the values
        children = [0]  # the values
        self.words = array("q", [*rows_array, *values_array, *rows_schema, *buffers, *children])

    def _metadata(self, dtype: Dtype, width: int, stride: int, positions: int) -> int:
        """Address of the schema's metadata: what Arrow has no word for.

        Encoded as Arrow does: int32 count, then int32 length and text of each key and value.
        """
        pairs = {}
        if dtype.name == "bfloat16":
            pairs[b"agflow.dtype"] = b"bfloat16"
        if stride != width:
            pairs[b"agflow.row_stride"] = b"%d" % stride
        if positions:
            pairs[b"agflow.positions"] = b"%d" % positions
        texts = [text for pair in pairs.items() for text in pair]
        block = struct.pack("i", len(pairs)) + b"".join(
            struct.pack("i", len(text)) + text for text in texts
        )
        return self._text(block) if pairs else 0

    def _text(self, content: bytes) -> int:
        return self._keep(ctypes.create_string_buffer(content))

    def _words(self, *values: int) -> int:
        return self._keep((ctypes.c_int64 * len(values))(*values))

    def _keep(self, memory: Any) -> int:
        self._kept.append(memory)
        return ctypes.addressof(memory)


_template = lru_cache(maxsize=256)(_Template)
