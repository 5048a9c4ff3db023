"""Every kind of file is read by pyarrow and polars alone, and damage is found before anything is parsed."""

import json
import os
import resource
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from agflow import arrow
from agflow._core.loader import core
from agflow.errors import CorruptFileError, DtypeError, FileError, InvalidValueError


@pytest.fixture
def scores(statistics):
    return arrow.call_for_batch(core().score, "agf", 3, statistics)


@pytest.fixture
def plan(scores):
    return arrow.call_for_report(core().plan, json.dumps({"pruning_ratio": 0.5, "round_to": 2}), scores)[1]


@pytest.fixture
def predictions():
    random = np.random.default_rng(1)
    label = random.integers(0, 5, 200)
    columns = [pa.array(label), pa.array(np.where(random.random(200) < 0.8, label, 0)), pa.array(random.random(200), pa.float32()),
               pa.array(np.where(random.random(200) < 0.9, label, 0))]
    metadata = {"agflow.kind": "predictions", "agflow.prior": "max_probability", "agflow.light_macs": "30",
                "agflow.heavy_macs": "100", "agflow.shared_macs": "0"}
    names = ["label", "light_prediction", "light_prior", "heavy_prediction"]
    return pa.RecordBatch.from_arrays(columns, names=names).replace_schema_metadata(metadata)


@pytest.fixture
def curve(predictions):
    return arrow.call_for_batch(core().curve, json.dumps({"points": 20}), predictions)


@pytest.fixture
def tensor(pairs):
    (y, g), _ = pairs
    metadata = {"agflow.layer": "blocks.0.mlp", "agflow.group": "mlp", "agflow.units": "6", "agflow.unit_width": "1",
                "agflow.unit_macs": "100", "agflow.unit_params": "20"}
    fields, columns = [], []
    for role, values in (("y", y), ("g", g)):
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(values.reshape(2, 5, 6), dim_names=["token", "channel"])
        fields.append(pa.field(f"blocks.0.mlp.{role}", column.type, metadata={**metadata, "agflow.role": role}))
        columns.append(column)
    model = {"agflow.kind": "tensor", "agflow.model": "tiny", "agflow.model_macs": "5000", "agflow.model_params": "400"}
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, model))


KINDS = ["statistics", "scores", "plan", "predictions", "curve", "tensor"]


@pytest.fixture(params=KINDS)
def table(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def file(table, tmp_path):
    path = str(tmp_path / "é table.arrow")
    assert arrow.call(core().write_file, path, table) == os.path.getsize(path)
    return path


def kind_of(table):
    return table.schema.metadata[b"agflow.kind"].decode()


def test_pyarrow_reads_it(table, file):
    with pa.memory_map(file) as source:
        read = pa.ipc.open_file(source).read_all()
    assert read.schema.equals(table.schema) and read.to_batches()[0].equals(table)
    metadata = read.schema.metadata
    assert metadata[b"agflow.format"] == b"1" and metadata[b"agflow.producer"].startswith(b"agflow ")
    assert metadata[b"agflow.checksum"].startswith(b"agflow-sha256-")
    assert {key: value for key, value in metadata.items() if key in table.schema.metadata} == table.schema.metadata


def test_polars_reads_it(table, file):
    read = pl.read_ipc(file)
    assert read.columns == table.schema.names and len(read) == table.num_rows
    if kind_of(table) != "tensor":
        assert read.to_dict(as_series=False) == table.to_pydict()


def test_agflow_reads_it(table, file):
    read = arrow.call_for_batch(core().read_file, file, kind_of(table))
    storage = [column.storage if isinstance(column, pa.ExtensionArray) else column for column in table.columns]
    read_storage = [column.storage if isinstance(column, pa.ExtensionArray) else column for column in read.columns]
    assert read.schema.names == table.schema.names and read_storage == storage
    assert {**table.schema.metadata, b"agflow.format": b"1", b"agflow.producer": read.schema.metadata[b"agflow.producer"]} == read.schema.metadata


def test_written_again_is_the_same_file(file, tmp_path):
    again = str(tmp_path / "again.arrow")
    arrow.call(core().write_file, again, arrow.call_for_batch(core().read_file, file, ""))
    assert open(again, "rb").read() == open(file, "rb").read()


def test_a_tensor_file_has_tensors(tensor, tmp_path, pairs):
    path = str(tmp_path / "batch.arrow")
    arrow.call(core().write_file, path, tensor)
    with pa.memory_map(path) as source:
        column = pa.ipc.open_file(source).get_batch(0).column(0)
    assert isinstance(column.type, pa.FixedShapeTensorType) and column.type.dim_names == ["token", "channel"]
    assert (column.to_numpy_ndarray() == pairs[0][0].reshape(2, 5, 6)).all()


@pytest.mark.parametrize("convert", [
    lambda table: table,
    lambda table: pa.Table.from_batches([table]),
    lambda table: pa.Table.from_batches([table.slice(0, 3), table.slice(3)]),
    lambda table: pl.DataFrame(pa.Table.from_batches([table])),
    lambda table: pa.record_batch([pa.DictionaryArray.from_arrays(pa.array([0] * 8), ["mlp"]) if name == "group" else column
                                   for name, column in zip(table.schema.names, table.columns)],
                                  names=table.schema.names),
], ids=["batch", "table", "chunks", "polars", "dictionary"])
def test_tables_of_other_tools(scores, convert):
    batch = arrow.record_batch(convert(scores)).replace_schema_metadata(scores.schema.metadata)
    if batch["group"].to_pylist() == scores["group"].to_pylist():
        report, plan = arrow.call_for_report(core().plan, json.dumps({"pruning_ratio": 0.5}), batch)
        assert plan["score"].equals(scores["score"]) and json.loads(report)["layers"][0]["kept"] == 3
    assert batch.schema.field("group").type == pa.string()


def test_no_table_is_refused_by_name():
    with pytest.raises(DtypeError, match="plan: .*list"):
        arrow.record_batch([1], "plan")


def test_a_sliced_batch_is_its_rows(predictions, tmp_path):
    path, part = str(tmp_path / "part.arrow"), predictions.slice(13, 100)
    arrow.call(core().write_file, path, part)
    assert arrow.call_for_batch(core().read_file, path, "predictions").to_pydict() == part.to_pydict()


def test_wrong_kind(scores, tmp_path):
    path = str(tmp_path / "scores.arrow")
    arrow.call(core().write_file, path, scores)
    with pytest.raises(CorruptFileError, match="holds agflow scores, expected plan"):
        arrow.call_for_batch(core().read_file, path, "plan")


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:100], lambda b: b"", lambda b: b + b"\0",
                                    lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:], lambda b: os.urandom(len(b))])
def test_damage_is_found(scores, tmp_path, damage):
    path = tmp_path / "scores.arrow"
    arrow.call(core().write_file, str(path), scores)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptFileError, match="scores.arrow"):
        arrow.call_for_batch(core().read_file, str(path), "scores")


def test_a_file_of_another_program_is_refused(scores, tmp_path):
    path = str(tmp_path / "foreign.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, scores.schema) as writer:
        writer.write_batch(scores)
    with pytest.raises(CorruptFileError, match="another program wrote it"):
        arrow.call_for_batch(core().read_file, path, "scores")


@pytest.mark.parametrize("path", ["/none/x.arrow", "/proc/x.arrow", "/"])
def test_unwritable(scores, path):
    with pytest.raises(FileError, match="can't write"):
        arrow.call(core().write_file, path, scores)


def test_a_full_disk_leaves_nothing(scores, tmp_path):
    """A limit on the size of files is to a writer what a full disk is; it holds in a child process only."""
    source = tmp_path / "source.arrow"
    arrow.call(core().write_file, str(source), scores)
    target = tmp_path / "out"
    target.mkdir()
    code = ("import sys, signal, resource; from agflow import arrow; from agflow._core.loader import core\n"
            "table = arrow.call_for_batch(core().read_file, sys.argv[1], 'scores')\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (512, resource.RLIM_INFINITY))\n"
            "try: arrow.call(core().write_file, sys.argv[2] + '/x.arrow', table)\n"
            "except OSError as error: print(type(error).__name__, error)")
    done = subprocess.run([sys.executable, "-c", code, str(source), str(target)], capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("FileError can't write") and "room" in done.stdout, done.stderr
    assert os.listdir(target) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_table_that_could_not_be_read_again_is_not_written(scores, tmp_path):
    path = tmp_path / "x.arrow"
    for bad in (scores.slice(1), scores.replace_schema_metadata({}), scores.drop_columns(["score"]),
                scores.replace_schema_metadata({**scores.schema.metadata, b"agflow.kind": b"spreadsheet"})):
        with pytest.raises(InvalidValueError):
            arrow.call(core().write_file, str(path), bad)
    assert os.listdir(tmp_path) == []
