"""Tables of other Arrow tools, edited plans, and requests that no JSON has."""

import pathlib

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

import agflow
from agflow.cascade import CascadeCosts, join_predictions
from agflow.errors import DtypeError, InvalidValueError, NonFiniteError

INPUTS = pathlib.Path(__file__).parent / "goldens" / "inputs"


@pytest.fixture(scope="module")
def statistics():
    return agflow.Statistics.load(INPUTS / "statistics.arrow")


@pytest.fixture(scope="module")
def predictions():
    return agflow.Predictions.load(INPUTS / "predictions.arrow")


@pytest.fixture(scope="module")
def scores(statistics):
    return agflow.score(statistics)


def without_metadata(table):
    """Every form that a tool which drops the metadata may give back."""
    frame, plain = pl.DataFrame(table), pa.table(table).replace_schema_metadata(None)
    text = plain.schema.get_field_index("layer")
    replaced = lambda kind: plain.set_column(text, "layer", plain["layer"].cast(kind))
    return {
        "polars": frame,
        "polars to Arrow": frame.to_arrow(),
        "pandas": table.to_pandas(),
        "pandas, sorted and categorical": table.to_pandas().astype({"layer": "category"}),
        "chunks": pa.concat_tables([plain.slice(0, 7), plain.slice(7)]),
        "large_utf8": replaced(pa.large_string()),
        "string_view": replaced(pa.string_view()),
        "dictionary": plain.set_column(text, "layer", plain["layer"].dictionary_encode()),
        "stream": plain.to_reader(),
        "column order": plain.select(plain.schema.names[::-1]),
        "more columns": plain.append_column("mine", pa.array([0.5] * len(plain))),
    }


def test_tables_of_other_tools_are_taken(scores):
    expected = agflow.plan(scores, macs=0.5)
    for name, frame in without_metadata(scores).items():
        found = agflow.plan(agflow.Scores(frame, metadata=scores.metadata), macs=0.5)
        assert found.macs == expected.macs and np.array_equal(found["keep"], expected["keep"]), name


def test_lost_metadata_is_named_with_the_cure(scores, statistics, predictions):
    for table, lost in (
        (scores, "agflow.model, .*agflow.criterion, agflow.seed"),
        (statistics, "agflow.model, agflow.model_macs, agflow.model_params"),
        (predictions, "agflow.prior, agflow.light_cost, .*agflow.cost_unit"),
        (agflow.plan(scores, macs=0.5), "agflow.request, agflow.planned"),
    ):
        with pytest.raises(InvalidValueError, match=f"{lost}.*metadata=original.metadata"):
            type(table)(pl.DataFrame(table))


def test_functions_take_what_their_tables_take(scores, statistics, predictions):
    plan, table = agflow.plan(scores, macs=0.5), pa.table
    assert agflow.plan(table(scores), macs=0.5) == plan
    assert agflow.plan(table(statistics), macs=0.5) == agflow.plan(statistics, macs=0.5)
    assert agflow.score(table(statistics)) == scores
    assert plan.diff(table(plan)).overall.jaccard == 1
    assert agflow.calibrate_router(table(predictions)) == agflow.calibrate_router(predictions)
    assert agflow.cascade.curve(table(predictions)) == agflow.cascade.curve(predictions)


@pytest.mark.parametrize("value", [3, None, [1, 2], {"layer": ["a"]}, np.zeros(3), "scores.arrow"])
def test_what_is_no_table_is_refused(value):
    with pytest.raises(DtypeError, match=f"Scores: .*{type(value).__name__}"):
        agflow.Scores(value)


def test_types_have_their_names(scores):
    plain = pa.table(scores)
    at = plain.schema.get_field_index("score")
    for column, words in (
        (pa.array(["x"] * len(plain)), '"score" of the scores table is utf8, .*float64'),
        (pa.array([None] * len(plain)), "null is not a type"),
        (pa.array([b"x"] * len(plain)), "binary is not a type"),
        (pa.array([1] * len(plain), pa.timestamp("us")), "timestamp is not a type"),
        (pa.array([[1.0]] * len(plain)), '"score" of the scores table is fixed_size_list'),
        (pa.array([[]] + [[1.0]] * (len(plain) - 1)), "a list is not a type"),
    ):
        with pytest.raises(DtypeError, match=words):
            agflow.Scores(plain.set_column(at, "score", column))


def widths(table, wide):
    """The table as a program writes it that knows one width of integers and of floats."""
    kinds = {"int32": pa.int64(), "float": pa.float64()} if wide else {"int64": pa.uint32()}
    kinds |= {} if wide else {"int32": pa.int16()}
    plain = pa.table(table).replace_schema_metadata(None)
    return plain.cast(
        pa.schema(
            [field.with_type(kinds.get(str(field.type), field.type)) for field in plain.schema]
        )
    )


@pytest.mark.parametrize("wide", [True, False])
def test_columns_of_other_widths_are_the_same_table(scores, statistics, predictions, wide):
    plan = agflow.plan(scores, macs=0.5)
    curve = agflow.cascade.curve(predictions)
    for table in (scores, statistics, predictions, plan, curve):
        found = type(table)(widths(table, wide), metadata=table.metadata)
        assert found == type(table)(table.batch), type(table).__name__
    decimals = pa.table(scores).to_pandas()
    frame = pl.DataFrame(decimals).with_columns(pl.col("unit_macs").cast(pl.Decimal(20, 0)))
    found = agflow.Scores(frame, metadata=scores.metadata)
    assert all(np.array_equal(found[name], scores[name]) for name in scores.columns)


def written(frame, folder):
    """The files that polars and pandas write of a frame; csv where it has no lists."""
    plain = frame.to_pandas()
    texts = {"polars.csv": frame.write_csv, "pandas.csv": plain.to_csv}
    for name, write in {
        "polars.arrow": frame.write_ipc,
        "polars-zstd.arrow": lambda path: frame.write_ipc(path, compression="zstd"),
        "polars.stream": frame.write_ipc_stream,
        "polars.parquet": frame.write_parquet,
        "pandas.feather": plain.to_feather,
        "pandas.parquet": plain.to_parquet,
        **({} if "logits" in frame.columns else texts),
    }.items():
        write(folder / name)
        yield folder / name


def test_files_of_other_tools_load_back(scores, statistics, predictions, tmp_path):
    logits = agflow.cascade.Logits.of(np.eye(4, dtype=np.float32))
    plan = agflow.plan(scores, macs=0.5)
    for table in (scores, statistics, predictions, plan, logits):
        for path in written(pl.DataFrame(table), tmp_path):
            found = type(table).load(path, metadata=table.metadata)
            assert len(found) == len(table)
            for name, column in table.columns.items():
                assert np.array_equal(np.stack(found[name]), np.stack(column)), (path.name, name)


def test_a_file_without_its_metadata_says_what_is_lost(scores, tmp_path):
    pl.DataFrame(scores).write_ipc(tmp_path / "scores.arrow")
    with pytest.raises(InvalidValueError, match="lacks the metadata agflow.model"):
        agflow.Scores.load(tmp_path / "scores.arrow")


def edited(plan, keep):
    batch = plan.batch
    return agflow.Plan(batch.set_column(batch.schema.get_field_index("keep"), "keep", keep))


def test_an_edited_plan_has_the_costs_of_what_it_keeps(scores):
    plan = agflow.plan(scores, macs=0.5)
    first = pc.starts_with(plan.batch["layer"], "blocks.0")
    spared = edited(plan, pc.or_(plan.batch["keep"], first))
    dense = edited(plan, pa.array([True] * len(plan)))
    assert plan.macs < spared.macs < dense.macs == dense.model_macs
    assert plan.params < spared.params < dense.params
    assert f"{spared.macs / 1e6:.1f} M of" in str(spared) and "(1.000x)" in str(dense)
    back = edited(spared, plan.batch["keep"])
    assert (back.macs, back.params, str(back)) == (plan.macs, plan.params, str(plan))


def test_an_edited_plan_that_keeps_nothing_of_a_layer_is_refused(scores):
    plan = agflow.plan(scores, macs=0.5)
    name = plan.layers[-1].name
    with pytest.raises(InvalidValueError, match=f"keeps no unit of layer .*{name}"):
        edited(plan, pc.and_(plan.batch["keep"], pc.not_equal(plan.batch["layer"], name)))


def test_the_expert_of_broken_logits_is_named():
    good, labels = torch.randn(40, 4), torch.arange(40) % 4
    bad = good.clone()
    bad[7, 2] = float("inf")
    for light, heavy, name in ((good, bad, "heavy expert"), (bad, good, "light expert")):
        with pytest.raises(NonFiniteError, match=f"1 logits of the {name} .* row 7, column 2"):
            join_predictions(light, heavy, labels, CascadeCosts(1, 4))
    with pytest.raises(NonFiniteError, match="of the second view"):
        agflow.cascade.agreement(good, bad)


@pytest.mark.parametrize(
    "value, words",
    [
        (float("nan"), "tolerance is NaN"),
        (float("inf"), "tolerance is Infinity"),
        (np.float64("nan"), "tolerance is NaN"),
        ("a", 'tolerance is "a"'),
        ([0.1], "tolerance is "),
        (object(), "tolerance is a object"),
        (torch.zeros(2), "tolerance is a Tensor"),
    ],
)
def test_numbers_that_are_none_are_named(predictions, value, words):
    with pytest.raises(InvalidValueError, match=words):
        agflow.calibrate_router(predictions, tolerance=value)


def test_numbers_of_numpy_and_torch_are_numbers(predictions):
    expected = agflow.calibrate_router(predictions, tolerance=0.25)
    for value in (np.float32(0.25), np.array(0.25), torch.tensor(0.25)):
        assert agflow.calibrate_router(predictions, tolerance=value) == expected
