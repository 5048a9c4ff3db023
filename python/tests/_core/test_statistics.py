"""The sums equal numpy's in float64, bit for bit, for any split over calls and threads."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import ClosedError


def reference(y, g):
    """Per channel sums in float64, row after row."""
    y, g = y.astype(np.float64), g.astype(np.float64)
    sums = {
        "sum_abs_yg": np.abs(y * g),
        "sum_yg": y * g,
        "sum_yg2": (y * g) * (y * g),
        "sum_abs_y": np.abs(y),
        "sum_y": y,
        "sum_y2": y * y,
        "sum_g2": g * g,
    }
    return {name: np.add.accumulate(values)[-1] for name, values in sums.items()} | {
        "max_abs_yg": np.abs(y * g).max(0)
    }


def by_unit(channels, name, width):
    """Fold the channels of a unit in order."""
    parts = channels.reshape(-1, width)
    return parts.max(1) if name.startswith("max") else np.add.accumulate(parts, axis=1)[:, -1]


def test_sums_equal_numpy(statistics, pairs):
    for (first, last, width), (y, g) in zip([(0, 6, 1), (6, 8, 4)], pairs, strict=True):
        for name, channels in reference(y, g).items():
            assert (
                statistics[name].to_numpy()[first:last] == by_unit(channels, name, width)
            ).all(), name
    assert (
        statistics["rows"].to_pylist() == [10] * 8 and statistics["samples"].to_pylist() == [2] * 8
    )
    assert statistics["sum_abs_w"].to_pylist() == [3] * 6 + [24] * 2
    assert statistics["weights"].to_pylist() == [3] * 6 + [12] * 2


def test_metadata(statistics):
    metadata = statistics.schema.metadata
    assert metadata[b"agflow.kind"] == b"statistics" and metadata[b"agflow.model"] == b"tiny"
    assert (
        metadata[b"agflow.model_macs"] == b"5000"
        and metadata[b"agflow.data"].decode() == "sha256-é"
    )


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40),
    channels=st.integers(1, 9),
    workers=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_any_split_gives_the_same_bits(rows, channels, workers, seed, data):
    random = np.random.default_rng(seed)
    y, g = (
        (random.standard_normal((rows, channels)) * 10.0 ** random.integers(-20, 10)).astype(
            np.float32
        )
        for _ in range(2)
    )
    cuts = sorted(data.draw(st.lists(st.integers(1, max(1, rows - 1)), max_size=3)))
    layer = {
        "name": "a",
        "group": "mlp",
        "units": channels,
        "unit_width": 1,
        "unit_macs": 1,
        "unit_params": 1,
    }
    number = core().statistics_open(
        json.dumps(
            {
                "model": {"name": "a", "macs": 1, "params": 1},
                "layers": [layer],
                "workers": workers,
                "metadata": {},
            }
        )
    )
    try:
        for start, stop in zip([0, *cuts], [*cuts, rows], strict=True):
            if start < stop:
                arrow.call(
                    core().statistics_add,
                    number,
                    0,
                    1,
                    arrow.matrix(y[start:stop]),
                    arrow.matrix(g[start:stop]),
                )
        table = arrow.call_for_batch(core().statistics_table, number)
    finally:
        core().statistics_close(number)
    for name, sums in reference(y, g).items():
        assert (table[name].to_numpy() == sums).all(), name


def test_merge_adds(statistics):
    merged = arrow.call_for_batch(core().statistics_merge, statistics, statistics)
    assert (merged["sum_abs_yg"].to_numpy() == 2 * statistics["sum_abs_yg"].to_numpy()).all()
    assert merged["batches"].to_pylist() == [2] * 8
    assert merged["sum_w2"].equals(statistics["sum_w2"])


def test_closed_sessions_are_refused(spec):
    number = core().statistics_open(spec)
    core().statistics_close(number)
    for stale in (number, 0, -1, 10**12):
        with pytest.raises(ClosedError, match=str(stale)):
            arrow.call_for_batch(core().statistics_table, stale)


def test_threads(session, spec):
    """8 threads of 200 calls, into one session and into 8; whole numbers, so order is free."""
    y, g = np.full((3, 6), 2, np.float32), np.full((3, 6), 5, np.float32)
    failures = []

    def work():
        try:
            own = core().statistics_open(spec)
            for _ in range(200):
                for number in (session, own):
                    arrow.call(
                        core().statistics_add, number, 0, 1, arrow.matrix(y), arrow.matrix(g)
                    )
            assert (
                arrow.call_for_batch(core().statistics_table, own)["sum_yg"][0].as_py() == 200 * 30
            )
            core().statistics_close(own)
        except BaseException as error:  # a thread's error would be lost
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    table = arrow.call_for_batch(core().statistics_table, session)
    assert (
        table["sum_yg"].to_pylist()[:6] == [8 * 200 * 30] * 6
        and table["batches"][0].as_py() == 1600
    )


def test_results_outlive_their_session(spec, pairs):
    number = core().statistics_open(spec)
    arrow.call(
        core().statistics_add, number, 0, 1, arrow.matrix(pairs[0][0]), arrow.matrix(pairs[0][1])
    )
    table = arrow.call_for_batch(core().statistics_table, number)
    core().statistics_close(number)
    assert core().live_bytes() > 0
    column = table["sum_y"]
    del table
    assert (column.to_numpy()[:6] == reference(*pairs[0])["sum_y"]).all()
