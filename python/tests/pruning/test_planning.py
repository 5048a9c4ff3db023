"""Scores and plans from Python: what the Go core guarantees arrives unchanged."""

import json

import numpy as np
import polars
import pyarrow as pa
import pytest

import agflow
from agflow.errors import (
    BudgetError,
    CorruptFileError,
    InvalidValueError,
    ShapeError,
    UnknownLayerError,
)
from agflow.pruning import Allocation


def test_agf_is_the_mean_absolute_product_per_row(statistics):
    columns = statistics.columns
    scores = agflow.score(statistics, "agf")
    np.testing.assert_array_equal(scores.columns["score"], columns["sum_abs_yg"] / columns["rows"])


def test_relative_agf_has_mean_one_in_every_layer(statistics):
    scores = agflow.score(statistics, "agf_relative")
    for layer in scores.layers:
        assert scores.of(layer.name).mean() == pytest.approx(1, rel=1e-12)


def test_a_macs_budget_is_kept_and_used(statistics):
    for budget in (0.3, 0.5, 0.8):
        plan = agflow.plan(statistics, macs=budget)
        assert plan.macs <= budget * plan.model_macs
        assert plan.macs > (budget - 0.02) * plan.model_macs
        assert all(layer.kept % 8 == 0 for layer in plan.planned if layer.group == "mlp")


def test_a_parameter_budget_is_kept_and_used(statistics):
    dense = int(statistics.metadata["agflow.model_params"])
    for budget, joint in (0.6, False), (0.8, True):
        plan = agflow.plan(statistics, params=budget, allocation=Allocation(joint=joint))
        assert (budget - 0.02) * dense < plan.params <= budget * dense
        assert (
            plan.report["params"] == plan.params
            and plan.report["dense_params"] == dense
            and plan.latency_ms is None
        )
        gone = ~plan.columns["keep"]
        assert (
            plan.params == dense - plan.columns["unit_params"][gone].sum()
            and plan.macs == plan.model_macs - plan.columns["unit_macs"][gone].sum()
        )


def test_kinds_that_the_scores_lack_are_skipped_beside_one_that_they_have(statistics):
    plans = [
        agflow.plan(statistics, macs=0.5, allocation=Allocation(groups=groups))
        for groups in (["mlp"], ["conv", "mlp", "stage"])
    ]
    assert plans[0].batch.equals(plans[1].batch, check_metadata=True)
    for groups in (["conv"], ["mlp", "neurons"]):
        with pytest.raises(InvalidValueError, match=f'"{groups[-1]}", which no layer is of'):
            agflow.plan(statistics, macs=0.5, allocation=Allocation(groups=groups))


def test_no_layer_keeps_less_than_the_floor(statistics):
    plan = agflow.plan(statistics, pruning_ratio=0.9, allocation=Allocation(floor=0.3))
    assert all(layer.kept >= 0.3 * layer.units for layer in plan.planned)
    assert (
        min(
            layer.kept / layer.units for layer in agflow.plan(statistics, pruning_ratio=0.9).planned
        )
        < 0.3
    )


def test_ignored_layers_and_other_groups_keep_all_units(statistics):
    plan = agflow.plan(
        statistics,
        pruning_ratio=0.5,
        allocation=Allocation(groups=["mlp"], ignored_layers=["blocks.0.*"], widths="uniform"),
    )
    for layer in plan.planned:
        expected = (
            layer.units
            if layer.group == "heads" or layer.name.startswith("blocks.0.")
            else layer.units // 2
        )
        assert layer.kept == expected, layer


def test_kept_units_are_those_with_the_largest_scores(statistics):
    plan = agflow.plan(statistics, pruning_ratio=0.5, allocation=Allocation(groups=["mlp"]))
    scores = agflow.score(statistics)
    for layer in plan.planned:
        if layer.group == "mlp":
            largest = np.argsort(-scores.of(layer.name), kind="stable")[: layer.kept]
            np.testing.assert_array_equal(plan.kept(layer.name), np.sort(largest))


def test_widths_and_ranks_follow_a_criterion_each(statistics):
    """No removed step of 8 has more importance, over its layer's mean, than the last kept one."""
    plan = agflow.plan(statistics, pruning_ratio=0.5, allocation=Allocation(groups=["mlp"]))
    assert (plan.widths, plan.metadata["agflow.criterion"]) == ("variance_weighted", "agf")
    widths, last_kept, first_gone = agflow.score(statistics, "variance_weighted"), [], []
    for layer in (layer for layer in plan.planned if layer.group == "mlp"):
        curve = np.sort(widths.of(layer.name))[::-1]
        steps = (curve / curve.mean()).reshape(-1, 8).sum(1)
        last_kept += [steps[layer.kept // 8 - 1]] if layer.kept > 8 else []
        first_gone += [steps[layer.kept // 8]] if layer.kept < layer.units else []
    assert min(last_kept) >= max(first_gone)
    assert sum(layer.kept for layer in plan.planned if layer.group == "mlp") * 2 == sum(
        layer.units for layer in plan.planned if layer.group == "mlp"
    )


def test_without_reading_weights_the_criterion_shares_units_out(statistics):
    names = statistics.batch.schema.names
    columns = [
        pa.array([0] * len(statistics), pa.int64()) if name == "reader_weights" else column
        for name, column in zip(names, statistics.batch.columns, strict=True)
    ]
    bare = agflow.Statistics(pa.RecordBatch.from_arrays(columns, schema=statistics.batch.schema))
    assert agflow.plan(bare, macs=0.5).batch.equals(
        agflow.plan(statistics, macs=0.5, allocation=Allocation(widths="agf")).batch
    )
    with pytest.raises(UnknownLayerError, match="variance_weighted"):
        agflow.plan(bare, macs=0.5, allocation=Allocation(widths="variance_weighted"))


def test_scores_alone_give_uniform_widths(statistics):
    scores = agflow.score(statistics)
    plan = agflow.plan(scores, macs=0.5)
    assert plan.widths == "uniform" and plan.batch.equals(
        agflow.plan(statistics, macs=0.5, allocation=Allocation(widths="uniform")).batch
    )
    with pytest.raises(InvalidValueError, match="need statistics and scores were given"):
        agflow.plan(scores, macs=0.5, allocation=Allocation(widths="variance_weighted"))


def test_plan_file_survives_a_round_trip_and_is_read_by_other_tools(statistics, tmp_path):
    plan = agflow.plan(statistics, macs=0.5)
    plan.save(tmp_path / "plan.arrow")
    assert agflow.Plan.load(tmp_path / "plan.arrow").batch.equals(plan.batch)
    with pa.memory_map(str(tmp_path / "plan.arrow")) as source:
        assert (
            pa.ipc.open_file(source).read_all().column("keep").to_pylist()
            == plan.columns["keep"].tolist()
        )
    assert polars.read_ipc(tmp_path / "plan.arrow")["keep"].sum() == plan.columns["keep"].sum()
    assert pa.record_batch(plan).num_rows == len(plan)


def test_two_shards_merge_into_the_run_over_both(example, loader):
    model, _ = example
    measure = lambda start, stop: agflow.calibrate(model, loader("train", start, stop), batches=2)
    whole, merged = measure(0, 128), measure(0, 64).merge(measure(64, 128))
    for name, column in whole.columns.items():
        if column.dtype == np.float64:
            np.testing.assert_allclose(
                merged.columns[name], column, rtol=0, atol=1e-13 * np.abs(column).max()
            )  # signed sums cancel
        else:
            np.testing.assert_array_equal(merged.columns[name], column)


def test_files_merge_as_their_tables_one_at_a_time(statistics, tmp_path):
    shard, other = tmp_path / "shard.arrow", tmp_path / "other.arrow"
    statistics.save(shard)
    (tmp_path / "link.arrow").symlink_to(shard)
    files = [shard, str(tmp_path / "link.arrow"), shard]
    assert agflow.Statistics.merge_files(files) == statistics.merge(statistics, statistics)
    other.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(agflow.errors.CorruptFileError, match=str(other)):
        agflow.Statistics.merge_files([*files, other])
    with pytest.raises(agflow.errors.EmptyError):
        agflow.Statistics.merge_files([])


def test_plans_and_scores_describe_themselves(statistics):
    plan = agflow.plan(statistics, macs=0.5, criterion="magnitude")
    assert (plan.criterion, plan.budget) == ("magnitude", ("macs", "0.5"))
    kept = plan.columns["keep"].sum()
    assert repr(plan) == (
        f"<agflow.Plan: keeps {kept} of {len(plan)} units in {len(plan.layers)} layers, "
        f"{plan.macs / plan.model_macs:.3f}x of the MACs, budget macs=0.5, criterion magnitude>"
    )
    html = plan._repr_html_()
    for layer in plan.planned:
        assert f"<td>{layer.name}</td><td>{layer.group}</td><td>{layer.kept}</td>" in html
    assert "budget" not in html and f"{plan.macs / 1e6:.1f} M of" in html and "macs=0.5" in html
    ratio = agflow.plan(statistics, pruning_ratio=0.25)
    assert ratio.budget == ("pruning_ratio", 0.25)
    scores = agflow.score(statistics, "variance")
    assert repr(scores) == (
        f"<agflow.Scores: criterion variance, {len(scores)} units in {len(scores.layers)} layers>"
    )


def test_two_plans_are_compared_layer_by_layer(statistics):
    half, third = (
        agflow.plan(
            statistics, pruning_ratio=ratio, allocation=Allocation(groups=["mlp"], widths="uniform")
        )
        for ratio in (0.5, 0.75)
    )
    found = half.diff(third)
    for layer in half.planned:
        kept = [set(plan.kept(layer.name)) for plan in (half, third)]
        row = found.layers[layer.name]
        assert (row.units, row.a, row.b, row.both) == (
            layer.units,
            *map(len, kept),
            len(kept[0] & kept[1]),
        )
        assert row.jaccard == len(kept[0] & kept[1]) / len(kept[0] | kept[1])
    a, b = half.columns["keep"], third.columns["keep"]
    assert found.overall.jaccard == (a & b).sum() / (a | b).sum() and str(found).count("\n") == len(
        half.planned
    )
    with pytest.raises(ShapeError, match="compare plans of the same model and groups"):
        half.diff(agflow.Plan(half.batch.slice(0, half.layers[0].units)))


def test_latency_needs_costs_and_a_table(latency, scores_with_costs, statistics, tmp_path):
    """Eight channels take 8 ms of 8 and one takes 1, beside a model of 16 ms: five take 10 ms."""
    latency.save(tmp_path / "latency.arrow")
    for table in latency, tmp_path / "latency.arrow", str(tmp_path / "latency.arrow"):
        plan = agflow.plan(
            scores_with_costs, latency_ms=11.9, allocation=Allocation(latency=table, round_to=1)
        )
        assert (
            plan.kept("mlp").tolist() == [3, 4, 5, 6, 7]
            and plan.latency_ms == pytest.approx(10)
            and latency.model_ms == 16
        )
        assert (plan.report["latency_ms"], plan.report["dense_latency_ms"]) == (plan.latency_ms, 16)
    assert agflow.plan(
        scores_with_costs, macs=0.5, allocation=Allocation(latency=latency, round_to=1)
    ).latency_ms == pytest.approx(8)
    with pytest.raises(InvalidValueError, match="no latency table was given"):
        agflow.plan(scores_with_costs, latency_ms=10)
    with pytest.raises(BudgetError, match="reaches 2 at the least"):
        agflow.plan(
            scores_with_costs, latency_ms=1.5, allocation=Allocation(latency=latency, round_to=1)
        )
    with pytest.raises(CorruptFileError, match="expected latency"):
        plan.save(tmp_path / "plan.arrow")
        agflow.plan(
            scores_with_costs, latency_ms=10, allocation=Allocation(latency=tmp_path / "plan.arrow")
        )
    bare = scores_with_costs.batch.replace_schema_metadata(
        {k: v for k, v in scores_with_costs.batch.schema.metadata.items() if k != b"agflow.costs"}
    )
    with pytest.raises(InvalidValueError, match="no agflow.costs"):
        agflow.plan(agflow.Scores(bare), latency_ms=10, allocation=Allocation(latency=latency))


def test_a_budget_that_cannot_be_met_says_why_most_of_the_channels_stay(scores_with_costs):
    kept = [
        {"name": "0", "channels": 6, "reason": "read by aten.sort"},
        {"name": "1", "channels": 5, "reason": "the classes"},
        {"name": "2", "channels": 8, "reason": "read by aten.sort"},
    ]
    batch = scores_with_costs.batch
    metadata = {**batch.schema.metadata, b"agflow.kept": json.dumps(kept).encode()}
    scores = agflow.Scores(batch.replace_schema_metadata(metadata))
    words = r"at the least .*; most of what is kept \(14 of 19 channels\): read by aten\.sort$"
    with pytest.raises(BudgetError, match=words):
        agflow.plan(scores, macs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({}, InvalidValueError, "pruning_ratio"),
        ({"macs": 0.5, "params": 0.5}, InvalidValueError, "exactly one"),
        ({"params": "few"}, InvalidValueError, "few"),
        ({"macs": 0.5, "allocation": {"floor": 1.0}}, InvalidValueError, "floor is 1"),
        ({"params": 0.001}, BudgetError, "parameters"),
        ({"macs": 0.5, "pruning_ratio": 0.5}, InvalidValueError, "pruning_ratio"),
        ({"pruning_ratio": 1.5}, InvalidValueError, "1.5"),
        ({"macs": "half"}, InvalidValueError, "half"),
        ({"macs": 0.001}, BudgetError, "M"),
        ({"macs": 0.5, "criterion": "agff"}, InvalidValueError, "agf_relative"),
        (
            {"macs": 0.5, "allocation": {"ignored_layers": ["blocks.77.mlp"]}},
            UnknownLayerError,
            "blocks.77.mlp",
        ),
        (
            {"macs": 0.5, "allocation": {"widths": "evenly"}},
            InvalidValueError,
            "variance_weighted",
        ),
        ({"macs": 0.5, "allocation": {"groups": ["mpl"]}}, InvalidValueError, "mpl"),
        ({"macs": 0.5, "allocation": {"groups": 7}}, InvalidValueError, "sequence of names"),
        ({"macs": 0.5, "allocation": {"round_to": -1}}, InvalidValueError, "round_to is -1"),
    ],
)
def test_bad_requests_are_refused_in_one_sentence(statistics, arguments, error, words):
    with pytest.raises(error, match=words) as caught:
        allocation = Allocation(**arguments.get("allocation", {}))
        agflow.plan(statistics, **{**arguments, "allocation": allocation})
    assert "\n" not in str(caught.value)
