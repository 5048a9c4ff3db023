"""Fixtures of the whole road: the shipped example, small enough for every test."""

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


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
