"""Predictions of many images are read from their file and copied nowhere."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import agflow
from agflow._core.loader import core

MAPPED = 64 << 20  # bytes from which a file is mapped
MAPPINGS = Path("/proc/self/maps")
ROWS = MAPPED // 28 + 1  # of three columns of 8 bytes and one of 4


@pytest.fixture(scope="module")
def predictions():
    """Half of the images have the light expert's answer right: those of the higher priors."""
    prior = np.linspace(0, 1, ROWS, dtype=np.float32)
    label = np.arange(ROWS) % 10
    columns = {
        "label": label,
        "light_prediction": np.where(prior >= 0.5, label, 10),
        "light_prior": prior,
        "heavy_prediction": label,
    }
    costs = {"light": "30", "heavy": "100", "shared": "0"}
    metadata = {f"agflow.{name}_cost": cost for name, cost in costs.items()} | {
        "agflow.kind": "predictions",
        "agflow.format": "4",
        "agflow.prior": "max_probability",
        "agflow.cost_unit": "MACs",
    }
    return agflow.Predictions(pa.record_batch(columns).replace_schema_metadata(metadata))


def test_a_large_file_is_read_where_it_lies(predictions, tmp_path):
    path = tmp_path / "predictions.arrow"
    predictions.save(path)
    assert path.stat().st_size >= MAPPED
    before = core().live_bytes()
    loaded = agflow.Predictions.load(path)
    assert core().live_bytes() == before  # no copy of it
    assert str(path) in MAPPINGS.read_text()
    path.unlink()
    assert loaded.batch.equals(predictions.batch)  # whatever happens to the name
    router = agflow.calibrate_router(loaded, escalation=0.6)
    assert router.accuracy_cascade == 1 and 0.499 < router.escalation <= 0.501
    found = agflow.evaluate_router(loaded, router)
    assert (found.light, found.cascade) == (loaded.light_accuracy, 1)
    curve = agflow.cascade.curve(loaded, points=3)
    assert [round(float(x), 3) for x in curve["accuracy"]] == [0.5, 1, 1]
    assert agflow.cascade.rank_priors(loaded)[0].auroc == 1
    assert core().live_bytes() - before < 1 << 20  # the curve alone
    del loaded, found, router
    assert str(path) not in MAPPINGS.read_text()
