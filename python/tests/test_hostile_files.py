"""Damaged and forged files of every kind: one coded error, never one of Python's own."""

import os
import random
import zipfile

import numpy as np
import pyarrow as pa
import pytest
import torch
from hostile_kinds import FOREIGN, KINDS, STORED, TABLES, TELLING_NUMBERS, TELLING_TEXTS, use

import agflow
from agflow.cascade.answer_files import read_content
from agflow.errors import AgflowError, CorruptFileError, FileError

TRIALS = int(os.environ.get("AGFLOW_TRIALS", "5"))
"""Hostile files of every kind; the slow test makes a hundred times as many."""


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    kind = KINDS[request.param]
    path = kind.make(tmp_path_factory.mktemp(request.param))
    kind.read(path)
    return kind, path, path.read_bytes()


def damages(whole: bytes, chosen: random.Random, count: int):
    """Flipped bits and missing ends, the first and the last among them."""
    yield from (whole[:size] for size in (0, 1, len(whole) - 2))
    for _ in range(count):
        yield whole[: chosen.randrange(len(whole) - 1)]
        flipped = bytearray(whole)
        flipped[chosen.randrange(len(whole) - 1)] ^= 1 << chosen.randrange(8)
        yield bytes(flipped)


def refused(kind, path, whole, count):
    try:
        for damaged in damages(whole, random.Random(path.name), count):
            path.write_bytes(damaged)
            with pytest.raises((CorruptFileError, FileError)):
                kind.read(path)
    finally:
        path.write_bytes(whole)


def test_every_damage_is_one_coded_error(kind):
    refused(*kind, TRIALS)


@pytest.mark.slow
def test_many_damages_are_coded_errors(kind):
    refused(*kind, 100 * TRIALS)


def refused_or_read(name, folder, count):
    kind = FOREIGN[name]
    path = kind.make(folder)
    kind.read(path)
    for damaged in damages(path.read_bytes(), random.Random(name), count):
        path.write_bytes(damaged)
        try:
            kind.read(path)
        except AgflowError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize("name", FOREIGN)
def test_damaged_files_of_other_programs_are_one_coded_error(name, tmp_path):
    refused_or_read(name, tmp_path, 20 * TRIALS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOREIGN)
def test_many_damaged_files_of_other_programs_are_coded_errors(name, tmp_path):
    refused_or_read(name, tmp_path, 1000 * TRIALS)


def npy(header: str) -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(64)


def bomb(path):
    """A gigabyte of zeros as a megabyte of a zip file."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w") as member,
    ):
        member.write(npy("{'descr': '|u1', 'fortran_order': False, 'shape': (134217728,), }")[:128])
        for _ in range(128):
            member.write(bytes(1 << 20))


HOSTILE = {
    "a pickle inside": lambda path: np.save(path, np.array([{}], object), allow_pickle=True),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04]."),
    "PyTorch's": lambda path: torch.save({"x": torch.zeros(3)}, path),
    "a huge shape": lambda path: path.write_bytes(
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976, 8), }")
    ),
    "a negative shape": lambda path: path.write_bytes(
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -8), }")
    ),
    "code in a header": lambda path: path.write_bytes(npy("__import__('os').abort()")),
    "a zip bomb": bomb,
    "no member": lambda path: zipfile.ZipFile(path, "w").close(),
    "ragged csv": lambda path: path.write_text("a,b\n1,2\n3\n"),
    "an open quote": lambda path: path.write_text('a,b\n"1,2\n3,4\n'),
    "UTF-16": lambda path: path.write_text("a,b\n1,2\n", encoding="utf-16"),
    "JSON": lambda path: path.write_text('{"a": [1, 2]}'),
    "nothing": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_answers_are_one_sentence(what, tmp_path):
    path = tmp_path / "answers.npy"
    HOSTILE[what](path)
    with pytest.raises(CorruptFileError, match="answers.npy") as caught:
        read_content(path)
    assert "\n" not in str(caught.value)


SOUND_CSV = {
    "BOM": "\ufefflabel,x\n1,2\n",
    "semicolons": "label;x\n1;2,5\n",
    "tabs": "label\tx\n1\t2\n",
    "quotes": '"label","x"\n"1","2"\n',
    "pandas' index": ",label,x\n0,1,2\n",
    "no newline at the end": "label,x\n1,2",
    "Windows": "label,x\r\n1,2\r\n",
}


@pytest.mark.parametrize("form", SOUND_CSV)
def test_csv_files_of_many_programs_are_read(form, tmp_path):
    (tmp_path / "x.csv").write_text(SOUND_CSV[form])
    found = read_content(tmp_path / "x.csv")
    assert found.schema.names == ["label", "x"] and found["label"].to_pylist() == [1]
    assert found["x"].to_pylist()[0] in (2, 2.5)


@pytest.mark.parametrize("what", ["pipe", "device", "folder"])
def test_only_regular_files_are_read(kind, what, tmp_path):
    reader, path, _ = kind
    link = path.with_name("elsewhere")
    path.rename(link)
    try:
        if what == "pipe":
            os.mkfifo(path)
        elif what == "device":
            path.symlink_to("/dev/zero")
        else:
            path.mkdir()
        with pytest.raises(AgflowError, match="regular file|no file|is a folder|not a file"):
            reader.read(path)
    finally:
        path.rmdir() if what == "folder" else path.unlink()
        link.rename(path)


def forged_table(name: str, chosen: random.Random) -> pa.RecordBatch:
    """A sound table with one or two changes of its metadata or of its columns."""
    batch = pa.ipc.open_file(STORED / "format4" / f"{name}.arrow").get_batch(0)
    metadata = {key.decode(): value.decode() for key, value in batch.schema.metadata.items()}
    keys = [*metadata, "agflow.image_size", "agflow.costs", "agflow.skipped", "agflow.temperature"]
    keys += [
        "agflow.light_weight",
        "agflow.channel_groups",
        "agflow.kept",
        "agflow.answers",
        "agflow.parts",
    ]
    for _ in range(chosen.randint(1, 2)):
        if chosen.random() < 0.5:
            metadata[chosen.choice(keys)] = chosen.choice(TELLING_TEXTS)
        elif chosen.random() < 0.2:
            metadata.pop(chosen.choice(keys), None)
        elif chosen.random() < 0.2:
            batch = batch.slice(0, chosen.choice([0, 1]))
        else:
            batch = forged_column(batch, chosen)
    return batch.replace_schema_metadata(metadata)


def forged_column(batch: pa.RecordBatch, chosen: random.Random) -> pa.RecordBatch:
    at = chosen.randrange(batch.num_columns)
    field, rows = batch.schema.field(at), len(batch)
    if pa.types.is_string(field.type):
        values = [chosen.choice(TELLING_TEXTS) for _ in range(rows)]
    elif pa.types.is_boolean(field.type):
        values = [chosen.random() < 0.5 for _ in range(rows)]
    elif pa.types.is_integer(field.type):
        values = [chosen.choice(TELLING_NUMBERS["int"]) for _ in range(rows)]
    elif pa.types.is_floating(field.type):
        values = [chosen.choice(TELLING_NUMBERS["float"]) for _ in range(rows)]
    else:
        return batch
    return batch.set_column(at, field, pa.array(values, field.type))


def refuse_or_use(name: str, trials: int) -> None:
    for trial in range(trials):
        batch = forged_table(name, random.Random(f"{name} {trial}"))
        try:
            use(TABLES[name](batch))
        except AgflowError:
            continue
        except Exception as error:
            raise AssertionError(
                f"trial {trial}: {batch.to_pydict()} {batch.schema.metadata}"
            ) from error


@pytest.mark.parametrize("name", TABLES)
def test_forged_tables_are_refused_or_whole(name):
    refuse_or_use(name, 20 * TRIALS)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_many_forged_tables_are_refused_or_whole(name):
    refuse_or_use(name, 1000 * TRIALS)


def test_a_plan_without_a_budget_is_refused():
    batch = pa.ipc.open_file(STORED / "format4" / "plan.arrow").get_batch(0)
    request = batch.schema.metadata[b"agflow.request"].replace(b"0.5", b"0")
    metadata = {**batch.schema.metadata, b"agflow.request": request}
    with pytest.raises(AgflowError, match="exactly one"):
        agflow.Plan(batch.replace_schema_metadata(metadata))


@pytest.mark.parametrize("format", [1, 2, 3])
def test_files_of_older_formats_are_read(format):
    for path in sorted((STORED / f"format{format}").glob("*.arrow")):
        cls = TABLES.get(path.stem.split("-")[0])
        if cls is None:
            continue  # tensors, which Go alone reads
        table = cls.load(path)
        use(table)
        assert table.metadata["agflow.format"] == "4"


def test_a_newer_format_is_refused_by_its_number():
    batch = pa.ipc.open_file(STORED / "format4" / "scores.arrow").get_batch(0)
    newer = batch.replace_schema_metadata({**batch.schema.metadata, b"agflow.format": b"5"})
    words = "has format 5, this version reads up to 4: upgrade agflow"
    with pytest.raises(CorruptFileError, match=words):
        agflow.Scores(newer)
