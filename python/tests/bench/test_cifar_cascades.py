"""Cascades of CIFAR-10's ResNets within a limit of the expected cost, thresholds from other images.

The table of all pairs: ``python python/tests/bench/test_cifar_cascades.py FOLDER``, the folder of
the trained networks. Half of the 500 test images sets the threshold, the other half is evaluated,
20 times; the training images are memorised, so that no threshold can come from them.
"""

import sys

import numpy as np
import pytest
import torch
from cifar import cifar_images, trained_resnet
from torch.utils.data import DataLoader

import agflow
from agflow.cascade import CascadeCosts
from agflow.models import model_logits
from agflow.pruning import Allocation

pytestmark = pytest.mark.bench
SPLITS = 20
LIMIT = 0.55
"""Of the expected cost per image, as a share of the heavy expert's."""


def light_experts(folder, heavy):
    """By name: ResNet-20, and ResNet-56 pruned and repaired without training."""
    yield "ResNet-20", trained_resnet(folder, 20)
    loader = DataLoader(cifar_images(folder, limit=512), 64)
    mirrored = [(torch.cat([x, x.flip(-1)]), torch.cat([labels] * 2)) for x, labels in loader]
    statistics = agflow.calibrate(heavy, loader, groups="conv", loss="self")
    for macs in (0.4, 0.35):
        plan = agflow.plan(statistics, macs=macs, allocation=Allocation(round_to=1))
        yield f"ResNet-56 at {macs}x", agflow.prune(heavy, plan, mirrored)


@torch.no_grad()
def logits_of(model, images):
    return torch.cat([model_logits(model, x) for x in images.split(100)])


def splits(light, heavy, labels, costs):
    """Expected cost, and accuracy less the heavy expert's, of each split: [SPLITS, 2]."""
    found = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(labels))
        setting, testing = order[: len(order) // 2], order[len(order) // 2 :]
        held_out = agflow.Predictions.of(light[setting], heavy[setting], labels[setting], costs)
        router = agflow.calibrate_router(held_out, charged=LIMIT)
        test = agflow.Predictions.of(
            light[testing], heavy[testing], labels[testing], costs, router=router
        )
        evaluation = agflow.evaluate_router(test, router)
        found.append((evaluation.ledger.charged, evaluation.cascade - evaluation.heavy))
    return np.array(found)


def table(folder):
    """One row a pair: name, accuracy of light and heavy, mean cost, mean gain and its interval."""
    images, labels = cifar_images(folder, "test").tensors
    heavy = trained_resnet(folder, 56)
    by_heavy = logits_of(heavy, images)
    for name, light in light_experts(folder, heavy):
        light.input_size = heavy.input_size = (3, 32, 32)  # whose MACs are counted
        by_light = logits_of(light, images)
        found = splits(by_light, by_heavy, labels, CascadeCosts.of(light, heavy))
        accuracies = [
            float((one.argmax(1) == labels).float().mean()) for one in (by_light, by_heavy)
        ]
        cost, gain = found.mean(0)
        yield name, *accuracies, cost, gain, *np.quantile(found[:, 1], [0.025, 0.975])


# The pruned network falls short. At 0.4x of the MACs it has 90 % alone; with the images it is least
# sure of escalated it loses 0.6 points at 0.55x and none at 0.7x, and where 0.55x is a limit that a
# threshold from 250 images guarantees, it costs 0.43x and loses 1.6.
LEAST_GAIN = {"ResNet-20": 0.0, "ResNet-56 at 0.4x": -2.5, "ResNet-56 at 0.35x": -2.5}


@pytest.mark.slow
def test_cascades_cost_half_near_the_heavy_experts_accuracy(networks):
    for name, _, _, cost, gain, *_ in table(networks):
        assert cost <= LIMIT and 100 * gain >= LEAST_GAIN[name], name


if __name__ == "__main__":
    print(
        "light expert         light  heavy  expected cost  cascade - heavy, points (2.5 to 97.5 %)"
    )
    for name, light, heavy, cost, gain, low, high in table(sys.argv[1]):
        print(
            f"{name:<20} {100 * light:5.1f}  {100 * heavy:5.1f}  {cost:12.3f}x  "
            f"{100 * gain:+6.2f} ({100 * low:+.1f} to {100 * high:+.1f})",
            flush=True,
        )
