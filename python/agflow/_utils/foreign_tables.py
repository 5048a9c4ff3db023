"""Tables in files that other programs wrote: Arrow (file, stream, feather), parquet and csv.

What is damaged, or claims more than it has, is an error of pyarrow's or a ValueError, which the
caller names the file in.
"""

from __future__ import annotations

import mmap
import os
import re
from typing import BinaryIO

import pyarrow as pa

# A parquet file may be this many times as large as its compressed bytes, and this large in any
# case: what is beyond was made to fill memory.
MAX_INFLATION, ALWAYS_BYTES = 100, 64 << 20
MARK = b"agflow-sha256-"
"""The text before a checksum of agflow's own files."""


def has_checksum(file: BinaryIO) -> bool:
    """Whether an open file holds a checksum of agflow's, sound or not."""
    if not os.fstat(file.fileno()).st_size:
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(MARK) >= 0


def form_of(head: bytes) -> str | None:
    """The form of a file by its first bytes: parquet, Arrow file, Arrow stream or csv, or None."""
    for mark, form in ((b"PAR1", "parquet"), (b"ARROW1", "Arrow file")):
        if head.startswith(mark):
            return form
    if head.startswith(b"\xff\xff\xff\xff"):
        return "Arrow stream"
    return "csv" if head.strip() and b"\0" not in head and head[0] not in b"{[\x80" else None


def read_foreign_table(file: BinaryIO, form: str) -> pa.Table:
    """Read an open file of a form that :func:`form_of` names; all texts and offsets are checked.

    Columns of a csv file without a line of names are called ``f0``, ``f1``, …
    """
    file.seek(0)
    if form == "csv":
        return _csv(file)
    if form == "parquet":
        table = _parquet(file)
    elif form == "Arrow stream":
        table = pa.ipc.open_stream(file).read_all()
    else:
        table = pa.ipc.open_file(file).read_all()
    table.validate(full=True)
    return table


def _parquet(file: BinaryIO) -> pa.Table:
    from pyarrow import parquet

    found, there = parquet.ParquetFile(file), os.fstat(file.fileno()).st_size
    groups = (found.metadata.row_group(at) for at in range(found.metadata.num_row_groups))
    claimed = sum(group.total_byte_size for group in groups)
    if not 0 <= claimed <= max(ALWAYS_BYTES, MAX_INFLATION * there):
        raise ValueError(
            f"it claims {claimed} bytes made of {there}, expected at most {MAX_INFLATION} times as "
            "many; write it without compression if that is right"
        )
    return found.read()


def _csv(file: BinaryIO) -> pa.Table:
    from pyarrow import csv

    first = file.readline().decode("utf-8-sig").strip()
    second = file.readline().decode()
    delimiter = next((mark for mark in (";", "\t", ",", " ") if mark in first), ",")
    names = [name.strip().strip('"') for name in first.split(delimiter)]
    counted = len(names) > 1 and names == [str(number) for number in range(len(names))]
    nameless = all(map(_is_number, names)) and not counted
    comma = delimiter == ";" and re.search(r"\d,\d", first if nameless else second)
    file.seek(0)
    table = csv.read_csv(
        file,
        read_options=csv.ReadOptions(autogenerate_column_names=nameless),
        parse_options=csv.ParseOptions(delimiter=delimiter),
        convert_options=csv.ConvertOptions(decimal_point="," if comma else "."),
    )
    return table.select([name for name in table.schema.names if name])  # pandas' index has none


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?|nan|inf", text) is not None
