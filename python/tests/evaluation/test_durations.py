"""Latency percentiles: durations that occurred, and an error before the first call."""

import pytest

from agflow.errors import EmptyError
from agflow.evaluation.durations import Durations, Latency


def test_percentiles_are_durations_that_occurred():
    durations = Durations()
    for milliseconds in range(1, 201):
        durations.add(milliseconds / 1e3)
    assert durations.latency == Latency(200, 0.1, 0.198)
    assert str(durations.latency) == "p50 100.00 ms, p99 198.00 ms of 200"


def test_no_call_has_no_latency():
    with pytest.raises(EmptyError, match="no call was measured"):
        Durations().latency  # noqa: B018
