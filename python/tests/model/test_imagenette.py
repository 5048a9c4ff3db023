"""Accuracy on real images: DeiT-Tiny without a quarter of its MACs, straight after the cut, no training.

Half of the hidden channels of every MLP go. 256 images of ten ImageNet classes measure, rank and repair; top-1 of
1,000 classes is taken on 400 other images of these classes. The floors lie a little below what was measured.
"""

import pytest
from torch.utils.data import DataLoader

import agflow
from agflow.evaluation import evaluate

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def loaders(imagenette):
    """(calibration, test), balanced, drawn with seed 0."""
    return (DataLoader(imagenette("imagenette160_train3000.parquet", 256), batch_size=32),
            DataLoader(imagenette("imagenette160_val.parquet", 400), batch_size=50))


@pytest.fixture(scope="module")
def statistics(deit, loaders):
    return agflow.calibrate(deit[0], loaders[0], batches=8, groups=["mlp"])


@pytest.fixture(scope="module")
def top1(deit, loaders, statistics):
    """Percent right after cutting half by a criterion and repairing."""
    def measure(criterion, compensate):
        plan = agflow.plan(statistics, pruning_ratio=0.5, criterion=criterion, seed=0)
        light = agflow.prune(deit[0], plan, loaders[0], compensate=compensate)
        assert agflow.count_macs(light) == plan.macs
        return 100 * evaluate(light, loaders[1]).top1
    return measure


def test_ridge_keeps_the_accuracy_and_the_criterion_matters(deit, loaders, top1):
    dense = 100 * evaluate(deit[0], loaders[1]).top1
    repairs = ("none", "mean", "ridge")
    table = {criterion: {repair: top1(criterion, repair) for repair in repairs} for criterion in ("agf", "magnitude", "random")}
    print(f"\ndense {dense:.2f}")
    for criterion, row in table.items():
        print(f"{criterion:<10}", "  ".join(f"{repair} {row[repair]:5.2f}" for repair in repairs))
    agf, magnitude, random = table["agf"], table["magnitude"]["ridge"], table["random"]["ridge"]
    assert dense >= 71
    assert agf["ridge"] >= 67.5 and agf["ridge"] >= dense - 4
    assert agf["none"] + 25 < agf["mean"] and agf["mean"] + 10 < agf["ridge"]
    assert agf["ridge"] >= magnitude + 10 and agf["ridge"] >= random + 5
