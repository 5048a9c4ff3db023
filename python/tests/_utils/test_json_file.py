"""JSON files of agflow's own: what is refused, and that one changed bit is found."""

import hashlib
import json
import os

import pytest
import torch

import agflow
from agflow._utils.json_file import FORMAT, Keys, parse_object, read_json, write_json
from agflow.cascade import CascadeCosts
from agflow.errors import CorruptFileError, FileError, InvalidValueError

KEYS = {4: Keys(("name",), ("note",)), 1: Keys(("name",))}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "thing.json"
    write_json(path, {"name": "ViT", "note": [1, 0.5, None]}, "thing")
    return path


def with_checksum(text: str) -> str:
    """``text`` with the right digits for its 64 zeros, as somebody who forges a file makes it."""
    return text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest())


def test_it_comes_back_with_the_format_first_and_the_checksum_last(path):
    assert read_json(path, "thing", KEYS) == {
        "format": FORMAT,
        "name": "ViT",
        "note": [1, 0.5, None],
    }
    assert [*json.loads(path.read_text())] == ["format", "name", "note", "checksum"]


def test_equal_content_gives_equal_files(path):
    first = path.read_bytes()
    write_json(path, {"name": "ViT", "note": [1, 0.5, None]}, "thing")
    assert path.read_bytes() == first


def test_every_flipped_bit_and_every_truncation_is_found(path):
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(len(whole))]
    for position in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[position // 8] ^= 1 << position % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(CorruptFileError):
            read_json(path, "thing", KEYS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[]", "list, expected an object"),
        ("4", "int, expected an object"),
        ('{"format": 4, "format": 4}', "'format' comes twice"),
        ('{"format": 4, "a": {"b": 1, "b": 2}}', "'b' comes twice"),
        ('{"format": 4, "name": NaN}', "NaN is not finite"),
        ('{"format": 4, "name": 1e999}', "1e999 is not finite"),
        ('{"format": 4, "name": "\\ud800"}', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"format": ' + "9" * 5000 + "}", "is not JSON"),
        ('{"format": 5}', "has format 5, this version reads up to 4: upgrade agflow"),
        ('{"format": true, "name": ""}', "has format True, expected format 1 or 4"),
        ('{"format": 1.0, "name": ""}', "has format 1.0, expected format 1 or 4"),
        ('{"format": 3, "name": ""}', "has format 3, expected format 1 or 4"),
        ('{"name": ""}', "has no format, expected format 1 or 4"),
        ('{"format": 4, "name": ""}', "has no checksum at its end"),
        ('{"format": 1, "name": "", "checksum": ""}', "unknown 'checksum'"),
        ('{"format": 1}', "lacks 'name'"),
        (with_checksum('{"format": 4, "checksum": "sha256:%s"}' % ("0" * 64)), "lacks 'name'"),
        (
            with_checksum(
                '{"format": 4, "name": "", "nmae": "", "checksum": "sha256:%s"}' % ("0" * 64)
            ),
            "unknown 'nmae'",
        ),
    ],
)
def test_what_agflow_does_not_write_is_refused_by_name(path, text, message):
    path.write_text(text)
    with pytest.raises(CorruptFileError, match="^thing .*thing.json") as found:
        read_json(path, "thing", KEYS)
    assert message in str(found.value)


def test_an_earlier_format_needs_no_checksum(path):
    path.write_text('{"format": 1, "name": "ViT"}')
    assert read_json(path, "thing", KEYS) == {"format": 1, "name": "ViT"}


def test_only_regular_files_of_limited_size_are_read(path, tmp_path):
    with pytest.raises(CorruptFileError, match="larger than 20 bytes"):
        read_json(path, "thing", KEYS, limit=20)
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "pipe", tmp_path, "/dev/zero", "/dev/null"):
        with pytest.raises(FileError, match="no regular file"):
            read_json(name, "thing", KEYS)
    with pytest.raises(FileError, match="No such file"):
        read_json(tmp_path / "missing.json", "thing", KEYS)


def test_numbers_that_json_cannot_hold_are_not_written(path):
    before = path.read_bytes()
    with pytest.raises(InvalidValueError, match="the thing holds a number that is NaN"):
        write_json(path, {"name": float("nan")}, "thing")
    assert path.read_bytes() == before


def test_the_core_and_python_agree_on_checksums(tmp_path):
    """What Go writes has Python's checksum, and Go reads what Python writes."""
    logits = torch.eye(3).repeat(8, 1)
    predictions = agflow.cascade.join_predictions(
        logits, logits, torch.arange(24) % 3, CascadeCosts(1, 2)
    )
    router = agflow.calibrate_router(predictions, escalation=0.9)
    path = tmp_path / "router.json"
    router.save(path)
    content = json.loads(path.read_text())
    keys = {4: Keys([name for name in content if name not in ("format", "checksum")])}
    again = read_json(path, "router", keys)
    assert {**again, "checksum": content["checksum"]} == content
    del again["format"]
    write_json(path, again, "router")
    assert agflow.cascade.Router.load(path) == router
    raw = path.read_text()
    path.write_text(raw.replace('"confidence": 0.95', '"confidence": 0.96'))
    assert path.read_text() != raw
    with pytest.raises(CorruptFileError, match="checksum does not hold"):
        agflow.cascade.Router.load(path)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(CorruptFileError, match="^it is not JSON"):
        parse_object(b'{"a": "\xff"}', "it")
