"""Fixtures of the bridge."""

import json

import numpy as np
import pytest

from agflow._core import arrow
from agflow._core.loader import core

LAYERS = [
    {
        "name": "blocks.0.mlp",
        "group": "mlp",
        "units": 6,
        "unit_width": 1,
        "unit_macs": 100,
        "unit_params": 20,
    },
    {
        "name": "blocks.0.attn",
        "group": "heads",
        "units": 2,
        "unit_width": 4,
        "unit_macs": 900,
        "unit_params": 70,
    },
]
SPEC = {
    "model": {"name": "tiny", "macs": 5000, "params": 400},
    "layers": LAYERS,
    "workers": 1,
    "metadata": {"agflow.data": "sha256-é"},
}


@pytest.fixture(autouse=True)
def no_session_is_left():
    yield
    assert core().sessions() == 0


@pytest.fixture
def spec():
    """A request of statistics_open, as JSON."""
    return json.dumps(SPEC)


@pytest.fixture
def session(spec):
    number = core().statistics_open(spec)
    yield number
    core().statistics_close(number)


@pytest.fixture
def pairs():
    """(y, g), float32 [10, 6] and [10, 8], for both layers."""
    random = np.random.default_rng(0)
    return [
        tuple(random.standard_normal((10, channels)).astype(np.float32) for _ in range(2))
        for channels in (6, 8)
    ]


@pytest.fixture
def statistics(session, pairs):
    """A statistics table with weights for both layers."""
    for index, (y, g) in enumerate(pairs):
        arrow.call(core().statistics_add, session, index, 2, arrow.matrix(y), arrow.matrix(g))
        weight = np.full((3, y.shape[1]), index + 1, np.float32)
        arrow.call(core().statistics_add_weight, session, index, 1, arrow.matrix(weight))
    return arrow.call_for_batch(core().statistics_table, session)
