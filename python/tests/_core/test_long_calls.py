"""Signals end long calls into Go at once; nothing is lost, and calls of other threads go on."""

import ctypes
import json
import os
import signal
import threading
import time

import numpy as np
import polars
import pyarrow as pa
import pytest

import agflow
from agflow._core import arrow, long_calls
from agflow._core.loader import core
from agflow.errors import CancelledError, InvalidValueError

METADATA = {
    "agflow.kind": "predictions",
    "agflow.prior": "max_probability",
    "agflow.light_cost": "30",
    "agflow.heavy_cost": "100",
    "agflow.shared_cost": "0",
    "agflow.cost_unit": "MACs",
}
LATE = 1.0  # seconds; less than 0.2 where the machine has nothing else to do


@pytest.fixture(scope="module")
def predictions():
    """So many rows that their calibration takes about a second."""
    random, n = np.random.default_rng(0), 400_000
    prior, label = random.random(n, np.float32), random.integers(0, 10, n)
    columns = {
        "label": label,
        "light_prediction": np.where(random.random(n) < 0.6 + 0.39 * prior, label, 10),
        "light_prior": prior,
        "heavy_prediction": np.where(random.random(n) < 0.9, label, 10),
    }
    return agflow.Predictions(pa.record_batch(columns).replace_schema_metadata(METADATA))


@pytest.fixture
def signalled():
    """Send this process a signal a little later; returns when it was sent.

    A process that a shell started in the background ignores SIGINT, which these tests must not
    depend on.
    """
    sent, kept = [], signal.signal(signal.SIGINT, signal.default_int_handler)

    def soon(number, after=0.05):
        def send():
            sent.append(time.perf_counter())
            os.kill(os.getpid(), number)

        threading.Timer(after, send).start()
        return sent

    yield soon
    signal.signal(signal.SIGINT, kept)


def test_ctrl_c_ends_a_long_call_and_the_next_one_works(predictions, signalled):
    before = core().live_bytes()
    sent = signalled(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        agflow.calibrate_router(predictions)
    assert time.perf_counter() - sent[0] < LATE
    assert core().live_bytes() == before
    assert len(agflow.cascade.rank_priors(predictions)) == 1


def test_any_exception_of_a_handler_ends_a_long_call(predictions):
    def raises(number, frame):
        raise TimeoutError("too long")

    kept = signal.signal(signal.SIGALRM, raises)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(TimeoutError, match="too long"):
            agflow.calibrate_router(predictions)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)


def test_calls_of_other_threads_go_on(predictions, signalled):
    routers = []
    other = threading.Thread(target=lambda: routers.append(agflow.calibrate_router(predictions)))
    other.start()
    signalled(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        agflow.calibrate_router(predictions)
    other.join()
    assert routers == [agflow.calibrate_router(predictions)]


def test_an_exception_does_not_wait_for_go(signalled):
    assert polars.__version__  # it catches SIGINT before Python, and lets system calls go on
    sent = signalled(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        long_calls.interruptible(lambda: ctypes.CDLL(None).sleep(3))
    assert time.perf_counter() - sent[0] < LATE


def test_errors_and_results_of_long_calls_are_those_of_short_ones(predictions):
    with pytest.raises(InvalidValueError, match="tolerance"):
        agflow.calibrate_router(predictions, tolerance=2.0)
    assert long_calls.interruptible(max, 2, 3) == 3


def test_small_matrices_are_called_in_this_thread(monkeypatch):
    monkeypatch.setattr(long_calls._thread, "start_new_thread", None)
    y_RC = np.ones((4, 8), np.float32)
    assert agflow.functional.utility(y_RC, y_RC).sum() == 8


def calls_of(predictions, statistics, folder):
    """Calls that take long with large data, each with its arguments."""
    random = np.random.default_rng(0)
    logits = arrow.matrix(random.standard_normal((1000, 10)).astype(np.float32))
    labels = pa.record_batch({"label": random.integers(0, 10, 1000)})
    limit = {"prior": "", "answers": "heavy", "tolerance": 0.005, "confidence": 0.95}
    found = arrow.call(core().calibrate_router, json.dumps(limit), predictions)
    scores = arrow.call_for_batch(core().score, "agf", 0, statistics)
    path, new = os.fspath(folder / "old.arrow"), os.fspath(folder / "new.arrow")
    arrow.call(core().write_file, path, predictions)
    shard = folder.parent / f"{folder.name}.arrow"
    arrow.call(core().write_file, os.fspath(shard), statistics)
    return {
        "calibrate_router": (arrow.brief_call, json.dumps(limit), predictions),
        "evaluate_router": (arrow.brief_call, found, predictions),
        "rank": (arrow.brief_call, predictions),
        "oracle": (arrow.brief_call, "heavy", predictions),
        "curve": (arrow._call_for_batch, "{}", predictions),
        "read_file": (arrow._call_for_batch, path, "predictions"),
        "write_file": (arrow.brief_call, new, predictions),
        "priors": (arrow._call_for_batch, "light", 1.0, logits),
        "combine": (arrow._call_for_array, 0.5, logits, logits),
        "agreement": (arrow._call_for_array, logits, logits),
        "feature_norms": (arrow._call_for_array, logits),
        "route": (arrow._call_for_array, "max_probability", 1.0, 0.5, logits),
        "fit_temperature": (arrow.brief_call, logits, labels),
        "fit_light_weight": (arrow.brief_call, logits, logits, labels),
        "check_table": (arrow._call_for_batch, "predictions", predictions),
        "score": (arrow._call_for_batch, "agf", 0, statistics),
        "plan": (arrow._call_for_batch, '{"pruning_ratio": 0.5}', scores, 0, 0),
        "diagnose": (arrow.brief_call, '{"pruning_ratio": 0.5}', statistics),
        "statistics_merge_files": (arrow._call_for_batch, json.dumps([os.fspath(shard)] * 3)),
        "statistics_merge": (arrow._call_for_batch, statistics, statistics),
    }


def test_every_long_call_looks_at_the_flag_of_its_thread(predictions, statistics, tmp_path):
    flag = ctypes.c_int32()
    calls = calls_of(predictions.batch.slice(0, 1000), statistics, tmp_path)
    before = core().live_bytes()
    core().cancel_flag(ctypes.addressof(flag))
    try:
        for name, (call, *arguments) in calls.items():
            flag.value = 1
            with pytest.raises(CancelledError):
                call(getattr(core(), name), *arguments)
            assert sorted(path.name for path in tmp_path.iterdir()) == ["old.arrow"], name
            assert core().live_bytes() == before, name
            flag.value = 0
            call(getattr(core(), name), *arguments)
            (tmp_path / "new.arrow").unlink(missing_ok=True)
    finally:
        core().cancel_flag(0)
    assert core().live_bytes() == before


def test_a_flag_is_refused_where_none_can_be():
    with pytest.raises(InvalidValueError, match="leads to no int32"):
        core().cancel_flag(3)
