"""Fixtures of the whole road: the shipped example, small enough for every test."""

import json

import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from agflow import data


@pytest.fixture(scope="session")
def example():
    """(heavy expert, preprocessing) of the shipped example."""
    model, preprocessing, _ = data.model_from("example")
    return model.eval(), preprocessing


@pytest.fixture(scope="session")
def loader(example):
    """Make a loader over images [start, stop) of the example's training or test part."""
    parts = {part: data.load(f"example:{part}", preprocessing=example[1], classes=10) for part in ("train", "test")}

    def make(part, start, stop, batch_size=64):
        return DataLoader(Subset(parts[part], range(start, stop)), batch_size=batch_size)
    return make


@pytest.fixture(scope="session")
def statistics(example, loader):
    import agflow
    return agflow.calibrate(example[0], loader("train", 0, 256), batches=4, progress=False)


@pytest.fixture(scope="session")
def light(example, loader, statistics):
    """The example at 0.35x of its MACs, repaired and not trained."""
    import agflow
    plan = agflow.plan(statistics, macs=0.35)
    return agflow.prune(example[0], plan, loader("train", 0, 256), progress=False).eval()


@pytest.fixture(scope="session")
def scores_with_costs():
    """Scores of a model that is one linear layer, 8 channels to 10, and its costs: channel 7 is worth most."""
    import agflow
    costs = {"sizes": {"mlp": 8}, "products": [{"kind": "linear", "name": "fc", "rows": 1, "inputs": [[1, "mlp"]], "outputs": [[10]]}]}
    ones = pa.array([1] * 8, pa.int32())
    columns = {"layer": ["mlp"] * 8, "group": ["mlp"] * 8, "unit": pa.array(range(8), pa.int32()), "unit_width": ones, "parts": ones,
               "unit_macs": [10] * 8, "unit_params": [10] * 8, "score": [float(unit + 1) for unit in range(8)]}
    metadata = {"agflow.kind": "scores", "agflow.model": "tiny", "agflow.model_macs": "80", "agflow.model_params": "80",
                "agflow.criterion": "agf", "agflow.seed": "0", "agflow.costs": json.dumps(costs)}
    return agflow.Scores(pa.RecordBatch.from_pydict(columns).replace_schema_metadata(metadata))


@pytest.fixture(scope="session")
def latency():
    """A latency table of that model."""
    import agflow
    columns = {"kind": ["linear"] * 2, "rows": [1] * 2, "shape": ["linear 1x8x10"] * 2, "inputs": [1, 8], "outputs": [10] * 2,
               "heads": [0] * 2, "ms": [1.0, 8.0]}
    metadata = {"agflow.kind": "latency", "agflow.model": "tiny", "agflow.model_ms": "16"}
    return agflow.LatencyTable(pa.RecordBatch.from_pydict(columns).replace_schema_metadata(metadata))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
