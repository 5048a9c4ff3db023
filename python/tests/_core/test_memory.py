"""Every byte that Go hands out comes back when Python lets go, after errors too."""

import gc
import json
import tracemalloc

import numpy as np
import pytest

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import AgflowError


@pytest.fixture
def live():
    """Bytes that Go holds for Python, more than before the test."""
    gc.collect()
    before = core().live_bytes()
    return lambda: core().live_bytes() - before


def test_results_come_back(live, spec, pairs):
    number = core().statistics_open(spec)
    for index, (y, g) in enumerate(pairs):
        arrow.call(core().statistics_add, number, index, 2, arrow.matrix(y), arrow.matrix(g))
    assert live() == 0  # inputs are Python's
    table = arrow.call_for_batch(core().statistics_table, number)
    core().statistics_close(number)
    held = live()
    assert held > 0
    column = table["sum_y"]
    del table
    assert 0 < live() <= held  # the column keeps what it needs
    del column
    assert live() == 0


def test_all_calls_give_memory_back(live, spec, pairs, tmp_path):
    def all_calls():
        number = core().statistics_open(spec)
        for index, (y, g) in enumerate(pairs):
            arrow.call(core().statistics_add, number, index, 2, arrow.matrix(y), arrow.matrix(g))
        table = arrow.call_for_batch(core().statistics_table, number)
        core().statistics_close(number)
        merged = arrow.call_for_batch(core().statistics_merge, table, table)
        scores = arrow.call_for_batch(core().score, "agf", 0, merged)
        _, plan = arrow.call_for_report(
            core().plan, json.dumps({"pruning_ratio": 0.5}), scores, 0, 0
        )
        arrow.call(core().write_file, str(tmp_path / "plan.arrow"), plan)
        arrow.call_for_batch(core().read_file, str(tmp_path / "plan.arrow"), "plan")
        arrow.call_for_batch(core().priors, "light", 1.0, arrow.matrix(pairs[0][0]))
        arrow.call_for_array(core().route, "energy", 1.0, 0.5, arrow.matrix(pairs[0][0]))
        arrow.call_for_array(core().abs_yg, 1, *map(arrow.matrix, pairs[0]))
        arrow.call_for_array(core().top_k, 3, 1, arrow.matrix(np.arange(9.0)[:, None]))
        arrow.call(core().diagnose, json.dumps({"criteria": ["agf"], "pruning_ratio": 0.5}), merged)

    for _ in range(3):
        all_calls()
        assert live() == 0


def test_errors_keep_nothing(live, pairs):
    y, _ = pairs[0]
    for _ in range(100):
        for wrong in (
            lambda: arrow.call_for_batch(core().score, "no such criterion", 0, arrow.matrix(y)),
            lambda: arrow.call_for_array(
                core().route, "energy", 1.0, float("nan"), arrow.matrix(y)
            ),
            lambda: arrow.call_for_batch(core().read_file, "/none", "plan"),
        ):
            with pytest.raises(AgflowError):
                wrong()
    assert live() == 0


@pytest.mark.parametrize("columns", [6, 12], ids=["rows together", "rows apart"])
def test_calls_keep_nothing(session, columns):
    """Thousands of calls leave no Python memory behind, refused ones neither."""
    value = np.ones((3, columns), np.float32)[:, :6]

    def calls():
        for _ in range(1000):
            arrow.call(
                core().statistics_add, session, 0, 1, arrow.matrix(value), arrow.matrix(value)
            )
            with pytest.raises(AgflowError):
                arrow.call(
                    core().statistics_add, session, 1, 1, arrow.matrix(value), arrow.matrix(value)
                )

    calls()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        calls()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 10_000
