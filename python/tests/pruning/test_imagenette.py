"""Accuracy on real images: DeiT-Tiny right after pruning, without training.

Half or three quarters of the hidden channels of the MLPs are removed. The statistics and the
compensation come from 256 images of ten ImageNet classes; top-1 of 1,000 classes is measured on 400
other images of these classes. The asserted accuracies lie a little below what was measured.
"""

import functools

import pytest
from torch.utils.data import DataLoader

import agflow
from agflow.evaluation.accuracy import evaluate
from agflow.pruning import Allocation

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def loaders(imagenette):
    """(calibration, test), balanced, drawn with seed 0."""
    return (
        DataLoader(imagenette("imagenette160_train3000.parquet", 256), batch_size=32),
        DataLoader(imagenette("imagenette160_val.parquet", 400), batch_size=50),
    )


@pytest.fixture(scope="module")
def statistics(deit, loaders):
    return agflow.calibrate(deit[0], loaders[0], batches=8, groups=["mlp"])


@pytest.fixture(scope="module")
def dense(deit, loaders):
    return 100 * evaluate(deit[0], loaders[1]).top1


@pytest.fixture(scope="module")
def top1(deit, loaders, statistics):
    """Percent correct after pruning by a criterion and compensation; each is measured once."""

    @functools.cache
    def measure(pruning_ratio, criterion, compensate, widths="variance_weighted"):
        plan = agflow.plan(
            statistics,
            pruning_ratio=pruning_ratio,
            criterion=criterion,
            allocation=Allocation(widths=widths),
            seed=0,
        )
        light = agflow.prune(deit[0], plan, loaders[0], compensate=compensate)
        assert agflow.count_macs(light) == plan.macs
        right = 100 * evaluate(light, loaders[1]).top1
        print(f"\n{pruning_ratio} {criterion} widths {widths} {compensate}: {right:.2f}")
        return right

    return measure


def test_every_compensation_is_better_than_the_simpler_one(top1):
    none, mean, at_once, sequential = (
        top1(0.5, "agf", method) for method in ("none", "mean", "ridge_at_once", "ridge")
    )
    assert none + 25 < mean and mean + 8 < at_once and at_once < sequential


def test_sequential_reconstruction_keeps_the_accuracy_at_half_and_most_at_three_quarters(
    dense, top1
):
    assert dense >= 71
    assert top1(0.5, "agf", "ridge") >= dense - 2
    assert top1(0.75, "agf", "ridge") >= dense - 3
    assert top1(0.75, "agf", "ridge_at_once") <= dense - 12


def test_the_criterion_matters_at_three_quarters(top1):
    agf = top1(0.75, "agf", "ridge")
    assert agf >= top1(0.75, "magnitude", "ridge") + 8 and agf >= top1(0.75, "random", "ridge") + 1
