"""Latency percentiles: durations that occurred, and NaN before the first call."""

import math

from agflow.evaluation.durations import Durations, Latency


def test_percentiles_are_durations_that_occurred():
    durations = Durations()
    for milliseconds in range(1, 201):
        durations.add(milliseconds / 1e3)
    assert durations.latency == Latency(200, 0.1, 0.198)
    assert str(durations.latency) == "p50 100.00 ms, p99 198.00 ms of 200"


def test_no_call_has_no_latency():
    found = Durations().latency
    assert found.count == 0 and math.isnan(found.p50) and math.isnan(found.p99)
    assert str(found) == "no call yet"
