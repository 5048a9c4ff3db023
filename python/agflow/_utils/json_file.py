"""JSON files of agflow's own: a format first, a checksum last, and nothing that is not known."""

from __future__ import annotations

import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from agflow._utils.files import atomic_file, read_bytes
from agflow.errors import CorruptFileError, InvalidValueError

FORMAT = 4
MAX_JSON_BYTES = 1 << 20
_NO_DIGITS = "0" * 64
# At the end of the file, so that nothing can follow what is checked.
_CHECKSUM = re.compile(rb'"checksum"\s*:\s*"sha256:([0-9a-f]{64})"\s*\}\s*\Z')


class Keys(NamedTuple):
    """The keys of one format of a file beside ``format`` and ``checksum``."""

    required: Collection[str]
    optional: Collection[str] = ()


def json_bytes(content: Mapping[str, Any], kind: str) -> bytes:
    """The bytes of a JSON file that holds ``content``: equal content gives equal bytes.

    Parameters
    ----------
    content : JSON-ready, without ``format`` and ``checksum``, which are added
    kind : such as "router", for errors

    Raises
    ------
    InvalidValueError
        A number is NaN or infinite, which JSON cannot hold.
    """
    whole = {"format": FORMAT, **content, "checksum": f"sha256:{_NO_DIGITS}"}
    try:
        text = json.dumps(whole, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise InvalidValueError(
            f"the {kind} holds a number that is NaN or infinite, which JSON cannot hold"
        ) from error
    before, _, after = text.rpartition(_NO_DIGITS)
    return (before + hashlib.sha256(text.encode()).hexdigest() + after).encode()


def write_json(path: str | os.PathLike, content: Mapping[str, Any], kind: str) -> None:
    """Write a JSON file that :func:`read_json` reads; it appears whole or not at all.

    Raises
    ------
    FileError
        The file cannot be written; an older one of that name is still there.
    InvalidValueError
        As :func:`json_bytes`.
    """
    raw = json_bytes(content, kind)
    with atomic_file(path, kind) as made:
        made.write_bytes(raw)


def read_json(
    path: str | os.PathLike,
    kind: str,
    keys: Mapping[int, Keys],
    limit: int = MAX_JSON_BYTES,
) -> dict[str, Any]:
    """The content of a JSON file of agflow's, ``format`` first and without its ``checksum``.

    Parameters
    ----------
    kind : such as "router", for errors
    keys : of every format that is read; those before 4 have no checksum, and format 0 is that of a
        file which names none
    limit : in bytes; a larger file is refused

    Raises
    ------
    FileError
        The file is missing, cannot be read or is no regular file.
    CorruptFileError
        It is too large, no JSON object, damaged, of another format, or lacks a key or has one that
        is not known; the message names it.
    """
    path = pathlib.Path(path)
    raw = read_bytes(path, kind, limit)
    content = parse_object(raw, f"{kind} {path}")
    content = {"format": content.get("format", 0), **content}
    _check_format(content["format"], f"{kind} {path}", keys)
    if content["format"] >= FORMAT:
        _check_checksum(raw, f"{kind} {path}")
        del content["checksum"]
    required, optional = keys[content["format"]]
    missing = [name for name in required if name not in content]
    unknown = [name for name in content if name not in {"format", *required, *optional}]
    for what, names in (("lacks", missing), ("holds the unknown", unknown)):
        if names:
            raise CorruptFileError(
                f"{kind} {path} {what} {', '.join(sorted(map(repr, names)))}; it was damaged, "
                "edited or not written by agflow: write it again"
            )
    return content


def parse_object(raw: bytes, thing: str) -> dict[str, Any]:
    """One JSON object of ``raw``, in which no key comes twice and every number is finite.

    Raises
    ------
    CorruptFileError
        It is anything else; ``thing`` names it in the message.
    """
    try:
        text = raw.decode("utf-8")
        content = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_finite,
            parse_float=_finite,
        )
        json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair fails here
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(
            f"{thing} is not JSON as agflow writes it ({error}); write it again"
        ) from error
    if not isinstance(content, dict):
        raise CorruptFileError(
            f"{thing} holds a JSON {type(content).__name__}, expected an object; write it again"
        )
    return content


def _check_format(found: Any, thing: str, keys: Mapping[int, Keys]) -> None:
    if type(found) is int and found > FORMAT:
        raise CorruptFileError(
            f"{thing} has format {found}, this version reads up to {FORMAT}: upgrade agflow"
        )
    if type(found) is not int or found not in keys:
        known = " or ".join(map(str, filter(None, sorted(keys))))
        raise CorruptFileError(
            f"{thing} has {f'format {found!r:.40}' if found else 'no format'}, expected format "
            f"{known}: it was not written by agflow"
        )


def _check_checksum(raw: bytes, thing: str) -> None:
    found = _CHECKSUM.search(raw)
    if found is None:
        raise CorruptFileError(
            f"{thing} has no checksum at its end; it was damaged or edited: write it again"
        )
    first, end = found.span(1)
    blank = raw[:first] + _NO_DIGITS.encode() + raw[end:]
    if hashlib.sha256(blank).hexdigest().encode() != found[1]:
        raise CorruptFileError(
            f"{thing} is damaged or was edited: its checksum does not hold; write it again"
        )


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} comes twice")
    return content


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"number {text:.40} is not finite")
    return number
