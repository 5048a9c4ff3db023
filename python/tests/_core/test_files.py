"""pyarrow and polars read every kind of file, and damage is found before anything is parsed."""

import hashlib
import json
import os
import resource
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import CorruptFileError, DtypeError, EmptyError, FileError, InvalidValueError


@pytest.fixture
def scores(statistics):
    return arrow.call_for_batch(core().score, "agf", 3, statistics)


@pytest.fixture
def plan(scores):
    return arrow.call_for_report(
        core().plan, json.dumps({"pruning_ratio": 0.5, "round_to": 2}), scores, 0, 0
    )[1]


@pytest.fixture
def predictions():
    random = np.random.default_rng(1)
    label = random.integers(0, 5, 200)
    columns = [
        pa.array(label),
        pa.array(np.where(random.random(200) < 0.8, label, 0)),
        pa.array(random.random(200), pa.float32()),
        pa.array(np.where(random.random(200) < 0.9, label, 0)),
    ]
    metadata = {
        "agflow.kind": "predictions",
        "agflow.prior": "max_probability",
        "agflow.light_cost": "30",
        "agflow.heavy_cost": "100",
        "agflow.shared_cost": "0",
        "agflow.cost_unit": "MACs",
    }
    names = ["label", "light_prediction", "light_prior", "heavy_prediction"]
    return pa.RecordBatch.from_arrays(columns, names=names).replace_schema_metadata(metadata)


@pytest.fixture
def curve(predictions):
    return arrow.call_for_batch(core().curve, json.dumps({"points": 20}), predictions)


@pytest.fixture
def latency():
    columns = {
        "kind": ["linear"] * 4,
        "rows": [5] * 4,
        "shape": ["linear 5x8x6"] * 4,
        "inputs": [4, 4, 8, 8],
        "outputs": [3, 6, 3, 6],
        "heads": [0] * 4,
        "ms": [0.5, 0.75, 1.0, 1.5],
    }
    metadata = {
        "agflow.kind": "latency",
        "agflow.model": "tiny",
        "agflow.batch": "32",
        "agflow.device": "cpu",
        "agflow.threads": "1",
        "agflow.torch": "2",
        "agflow.model_ms": "12.5",
    }
    return pa.RecordBatch.from_pydict(columns).replace_schema_metadata(metadata)


def tensor_batch(pair, dtype):
    """A batch of two images as Python dumps it: [2, 5, 6] of ``dtype``, bfloat16 as uint16."""
    pairs = {
        "agflow.layer": "blocks.0.mlp",
        "agflow.group": "mlp",
        "agflow.units": "6",
        "agflow.unit_width": "1",
        "agflow.parts": "1",
        "agflow.unit_macs": "100",
        "agflow.unit_params": "20",
    }
    if dtype == "bfloat16":
        pairs["agflow.dtype"] = dtype
    fields, columns = [], []
    for role, values in zip("yg", pair, strict=True):
        values = (
            (values.view(np.uint32) >> 16).astype(np.uint16)
            if dtype == "bfloat16"
            else values.astype(dtype)
        )
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(
            values.reshape(2, 5, 6), dim_names=["token", "channel"]
        )
        fields.append(
            pa.field(f"blocks.0.mlp.{role}", column.type, metadata={**pairs, "agflow.role": role})
        )
        columns.append(column)
    model = {
        "agflow.kind": "tensor",
        "agflow.model": "tiny",
        "agflow.model_macs": "5000",
        "agflow.model_params": "400",
    }
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, model))


@pytest.fixture
def tensor(pairs):
    return tensor_batch(pairs[0], "float32")


@pytest.fixture
def frontier():
    columns = {
        "stage": ["pruned", "full"],
        "image_size": ["112x112"] * 2,
        "width": [1.0, 0.5],
        "branches": [24] * 2,
        "shared_blocks": [0] * 2,
        "light": [0.2, 0.1],
        "light_accuracy": [0.8, 0.9],
        "threshold": [0.5, 0.75],
        "answers": ["heavy", "ensemble"],
        "escalation": [0.5, 0.25],
        "accuracy": [0.9, 0.95],
        "charged": [0.7, 0.35],
        "images_per_second": [0.0, 0.0],
        "oracle": [0.4, 0.2],
    }
    return pa.RecordBatch.from_pydict(columns).replace_schema_metadata(
        {
            "agflow.kind": "frontier",
            "agflow.cost_unit": "MACs",
            "agflow.heavy_accuracy": "0.95",
            "agflow.tolerance": "0.01",
            "agflow.chosen": "1",
        }
    )


def test_a_frontier_that_lacks_something_is_not_written(frontier, tmp_path):
    for damaged, words in (
        (frontier.drop_columns(["charged"]), '0 columns "charged"'),
        (frontier.slice(0, 0), "no row"),
        (frontier.set_column(3, "branches", pa.array([1.5, 2.0])), "branches"),
    ):
        with pytest.raises((InvalidValueError, DtypeError, EmptyError), match=words):
            arrow.call(core().write_file, str(tmp_path / "frontier.arrow"), damaged)


KINDS = [
    "frontier",
    "statistics",
    "scores",
    "plan",
    "predictions",
    "curve",
    "latency",
    "tensor float32",
    "tensor float64",
    "tensor float16",
    "tensor bfloat16",
]


@pytest.fixture(params=KINDS)
def table(request):
    kind, _, dtype = request.param.partition(" ")
    return (
        tensor_batch(request.getfixturevalue("pairs")[0], dtype)
        if dtype
        else request.getfixturevalue(kind)
    )


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
    assert metadata[b"agflow.format"] == b"4" and metadata[b"agflow.producer"].startswith(
        b"agflow "
    )
    assert metadata[b"agflow.checksum"].startswith(b"agflow-sha256-")
    assert {
        key: value for key, value in metadata.items() if key in table.schema.metadata
    } == table.schema.metadata


def test_polars_reads_it(table, file):
    read = pl.read_ipc(file)
    assert read.columns == table.schema.names and len(read) == table.num_rows
    if kind_of(table) == "tensor":
        assert [series.to_numpy().tolist() for series in read] == [
            column.storage.flatten().to_numpy().reshape(2, 30).tolist() for column in table.columns
        ]
    else:
        assert read.to_dict(as_series=False) == table.to_pydict()


def test_agflow_reads_it(table, file):
    read = arrow.call_for_batch(core().read_file, file, kind_of(table))
    storage = [
        column.storage if isinstance(column, pa.ExtensionArray) else column
        for column in table.columns
    ]
    read_storage = [
        column.storage if isinstance(column, pa.ExtensionArray) else column
        for column in read.columns
    ]
    assert read.schema.names == table.schema.names and read_storage == storage
    assert {
        **table.schema.metadata,
        b"agflow.format": b"4",
        b"agflow.producer": read.schema.metadata[b"agflow.producer"],
    } == read.schema.metadata


def test_written_again_is_the_same_file(file, tmp_path):
    again = str(tmp_path / "again.arrow")
    arrow.call(core().write_file, again, arrow.call_for_batch(core().read_file, file, ""))
    assert open(again, "rb").read() == open(file, "rb").read()


def test_a_tensor_file_has_tensors(tensor, tmp_path, pairs):
    path = str(tmp_path / "batch.arrow")
    arrow.call(core().write_file, path, tensor)
    with pa.memory_map(path) as source:
        column = pa.ipc.open_file(source).get_batch(0).column(0)
    assert isinstance(column.type, pa.FixedShapeTensorType) and column.type.dim_names == [
        "token",
        "channel",
    ]
    assert (column.to_numpy_ndarray() == pairs[0][0].reshape(2, 5, 6)).all()


@pytest.mark.parametrize(
    "convert",
    [
        lambda table: table,
        lambda table: pa.Table.from_batches([table]),
        lambda table: pa.Table.from_batches([table.slice(0, 3), table.slice(3)]),
        lambda table: pl.DataFrame(pa.Table.from_batches([table])),
        lambda table: pa.record_batch(
            [
                pa.DictionaryArray.from_arrays(pa.array([0] * 8), ["mlp"])
                if name == "group"
                else column
                for name, column in zip(table.schema.names, table.columns, strict=True)
            ],
            names=table.schema.names,
        ),
    ],
    ids=["batch", "table", "chunks", "polars", "dictionary"],
)
def test_tables_of_other_tools(scores, convert):
    batch = arrow.record_batch(convert(scores)).replace_schema_metadata(scores.schema.metadata)
    if batch["group"].to_pylist() == scores["group"].to_pylist():
        report, plan = arrow.call_for_report(
            core().plan, json.dumps({"pruning_ratio": 0.5}), batch, 0, 0
        )
        assert (
            plan["score"].equals(scores["score"]) and json.loads(report)["layers"][0]["kept"] == 3
        )
    assert batch.schema.field("group").type == pa.string()


def test_no_table_is_refused_by_name():
    with pytest.raises(DtypeError, match="plan: .*list"):
        arrow.record_batch([1], "plan")


def lists(values, size, offset):
    """Lists at an offset of one, over values at an offset of their own."""
    return pa.FixedSizeListArray.from_arrays(pa.array(values)[offset:], size)[1:]


@pytest.mark.parametrize("first, rows", [(0, 200), (1, 1), (13, 100), (64, 65), (199, 1), (7, 0)])
def test_a_sliced_batch_is_its_rows(predictions, tmp_path, first, rows):
    """Slices of every type, of our columns and others, are written as copies of their rows are."""
    more = {
        "text": pa.array(["é" * (i % 4) for i in range(203)])[3:],
        "flag": pa.array([i % 3 == 0 for i in range(209)])[9:],
        "half": pa.array(np.arange(201, dtype=np.float16))[1:],
        "bits": pa.array(np.arange(205, dtype=np.uint16))[5:],
        "list": lists(np.arange(805, dtype=np.float64), 4, 1),
        "texts": lists([str(i) for i in range(405)], 2, 3),
    }
    whole = pa.RecordBatch.from_arrays(
        predictions.columns + list(more.values()), names=predictions.schema.names + list(more)
    )
    part = whole.slice(first, rows).replace_schema_metadata(predictions.schema.metadata)
    copy = pa.RecordBatch.from_pylist(part.to_pylist(), schema=part.schema)
    for name, batch in (("part", part), ("copy", copy)):
        arrow.call(core().write_file, str(tmp_path / name), batch)
    assert (tmp_path / "part").read_bytes() == (tmp_path / "copy").read_bytes()
    read = arrow.call_for_batch(core().read_file, str(tmp_path / "part"), "predictions")
    read.validate(full=True)
    assert read.to_pydict() == part.to_pydict()
    assert pa.ipc.open_file(tmp_path / "part").get_batch(0).to_pydict() == part.to_pydict()


@pytest.mark.parametrize(
    "column, message",
    [
        (pa.array(["a"] * 8).dictionary_encode(), "dictionary"),
        (pa.array([1] * 8, pa.int8()), "int8 is not a type"),
        (pa.array([1.0] * 7 + [None]), "null"),
        (pa.array([[1.0]] * 8), "a list is not a type"),
        (pa.array(["a"] * 8, pa.large_string()), "large_utf8 is not a type"),
    ],
)
def test_columns_that_no_file_holds_are_refused_by_name(scores, tmp_path, column, message):
    path = tmp_path / "x.arrow"
    batch = pa.RecordBatch.from_arrays(
        [*scores.columns, column], names=[*scores.schema.names, "more"]
    )
    with pytest.raises((DtypeError, InvalidValueError), match=f"column 8.*{message}"):
        arrow.call(
            core().write_file, str(path), batch.replace_schema_metadata(scores.schema.metadata)
        )
    assert not path.exists()


def test_wrong_kind(scores, tmp_path):
    path = str(tmp_path / "scores.arrow")
    arrow.call(core().write_file, path, scores)
    with pytest.raises(CorruptFileError, match="holds agflow scores, expected plan"):
        arrow.call_for_batch(core().read_file, path, "plan")


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b[:-1],
        lambda b: b[:100],
        lambda b: b"",
        lambda b: b + b"\0",
        lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:],
        lambda b: os.urandom(len(b)),
    ],
)
def test_damage_is_found(scores, tmp_path, damage):
    path = tmp_path / "scores.arrow"
    arrow.call(core().write_file, str(path), scores)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CorruptFileError, match="scores.arrow"):
        arrow.call_for_batch(core().read_file, str(path), "scores")


ZEROS = b"agflow-sha256-" + b"0" * 64


def write_with_pyarrow(path, table, batches=None, options=None):
    """Without agflow: both checksums are the SHA-256 of the file in which they are zeros."""
    schema = table.schema.with_metadata(
        {**table.schema.metadata, b"agflow.format": b"4", b"agflow.checksum": ZEROS}
    )
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, schema, options=options) as writer,
    ):
        for batch in batches or [table]:
            writer.write_batch(batch.cast(schema))
    content = path.read_bytes()
    assert content.count(ZEROS) == 2
    path.write_bytes(
        content.replace(ZEROS, b"agflow-sha256-" + hashlib.sha256(content).hexdigest().encode())
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metadata_version": pa.ipc.MetadataVersion.V4},
        {"metadata_version": pa.ipc.MetadataVersion.V4, "use_legacy_format": True},
    ],
    ids=["now", "V4", "old marker"],
)
def test_files_that_pyarrow_writes_with_a_checksum_are_read(table, tmp_path, options):
    path = tmp_path / "x.arrow"
    write_with_pyarrow(path, table, options=pa.ipc.IpcWriteOptions(**options))
    read = arrow.call_for_batch(core().read_file, str(path), kind_of(table))
    assert read.to_pydict() == table.to_pydict()


def test_slices_and_nulls_that_pyarrow_writes_are_read(predictions, tmp_path):
    path = tmp_path / "x.arrow"
    more = predictions.append_column(
        "more", pa.array([None if i % 3 else i / 2 for i in range(200)])
    )
    part = more.replace_schema_metadata(predictions.schema.metadata).slice(65, 70)
    write_with_pyarrow(path, part)
    assert (
        arrow.call_for_batch(core().read_file, str(path), "predictions").to_pydict()
        == part.to_pydict()
    )


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_files_are_refused_by_name(scores, tmp_path, compression):
    path = tmp_path / "x.arrow"
    write_with_pyarrow(path, scores, [scores], pa.ipc.IpcWriteOptions(compression=compression))
    with pytest.raises(CorruptFileError, match="x.arrow can't be read: it.* compressed"):
        arrow.call_for_batch(core().read_file, str(path), "scores")


def test_record_batches_are_joined(scores, tmp_path):
    path = tmp_path / "x.arrow"
    write_with_pyarrow(path, scores, [scores.slice(0, 3), scores.slice(3)])
    read = arrow.call_for_batch(core().read_file, str(path), "scores")
    assert read.to_pydict() == scores.to_pydict()


def test_numbers_of_other_widths_are_read(scores, tmp_path):
    path = tmp_path / "x.arrow"
    narrow = scores.set_column(2, "unit", scores["unit"].cast(pa.int8()))
    write_with_pyarrow(path, narrow.replace_schema_metadata(scores.schema.metadata))
    read = arrow.call_for_batch(core().read_file, str(path), "scores")
    assert read.to_pydict() == scores.to_pydict()


@pytest.mark.parametrize(
    "message, column",
    [
        ("dictionary", pa.array(["a"] * 8).dictionary_encode()),
        ("large utf8", pa.array(["a"] * 8, pa.large_string())),
        ("utf8 view", pa.array(["a"] * 8, pa.string_view())),
        ("timestamp", pa.array([1] * 8, pa.timestamp("s"))),
        ("list", pa.array([[1]] * 8)),
    ],
)
def test_other_columns_are_refused_by_name(scores, tmp_path, message, column):
    path = tmp_path / "x.arrow"
    batch = pa.RecordBatch.from_arrays(
        [*scores.columns, column], names=[*scores.schema.names, "more"]
    )
    write_with_pyarrow(path, batch.replace_schema_metadata(scores.schema.metadata))
    with pytest.raises(CorruptFileError, match=f"more.* is {message}"):
        arrow.call_for_batch(core().read_file, str(path), "scores")


def test_files_of_other_programs_have_no_checksum_and_may_lack_metadata(scores, tmp_path):
    path = str(tmp_path / "foreign.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, scores.schema) as writer:
        writer.write_batch(scores)
    assert arrow.call_for_batch(core().read_file, path, "scores").equals(scores)
    pl.DataFrame(pa.Table.from_batches([scores])).write_ipc(path + "2")
    with pytest.raises(CorruptFileError, match="is utf8 view, agflow reads utf8"):
        arrow.call_for_batch(core().read_file, path + "2", "scores")


@pytest.mark.parametrize("path", ["/none/x.arrow", "/proc/x.arrow", "/"])
def test_unwritable(scores, path):
    with pytest.raises(FileError, match="can't write|no regular file"):
        arrow.call(core().write_file, path, scores)


def test_a_full_disk_leaves_nothing(scores, tmp_path):
    """A limit on the size of files, in a child process, is like a full disk to a writer."""
    source = tmp_path / "source.arrow"
    arrow.call(core().write_file, str(source), scores)
    target = tmp_path / "out"
    target.mkdir()
    code = (
        "import sys, signal, resource\n"
        "from agflow._core import arrow\n"
        "from agflow._core.loader import core\n"
        "table = arrow.call_for_batch(core().read_file, sys.argv[1], 'scores')\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, resource.RLIM_INFINITY))\n"
        "try: arrow.call(core().write_file, sys.argv[2] + '/x.arrow', table)\n"
        "except OSError as error: print(type(error).__name__, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(target)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("FileError can't write") and "room" in done.stdout, done.stderr
    assert os.listdir(target) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_table_that_could_not_be_read_again_is_not_written(scores, tmp_path):
    path = tmp_path / "x.arrow"
    for bad in (
        scores.slice(1),
        scores.replace_schema_metadata({}),
        scores.drop_columns(["score"]),
        scores.replace_schema_metadata({**scores.schema.metadata, b"agflow.kind": b"spreadsheet"}),
    ):
        with pytest.raises(InvalidValueError):
            arrow.call(core().write_file, str(path), bad)
    assert os.listdir(tmp_path) == []
