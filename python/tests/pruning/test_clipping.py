"""What an activation behind a fitted layer cuts off."""

import math

import pytest
import torch
from torch import nn

from agflow.models.tracing.graph import exported
from agflow.models.tracing.network import traced_network
from agflow.pruning.clipping import Limits, limits_behind
from agflow.pruning.graph_pruner import prune_by_graph
from agflow.pruning.graph_reconstruction import GraphReconstruction

ACTIVATIONS = {
    "ReLU": (nn.ReLU(), Limits(0.0, math.inf)),
    "ReLU in place": (nn.ReLU(inplace=True), Limits(0.0, math.inf)),
    "ReLU6": (nn.ReLU6(), Limits(0.0, 6.0)),
    "ReLU6 in place": (nn.ReLU6(inplace=True), Limits(0.0, 6.0)),
    "Hardtanh": (nn.Hardtanh(), Limits(-1.0, 1.0)),
    "Hardtanh of other limits": (nn.Hardtanh(-2.0, 0.5), Limits(-2.0, 0.5)),
    "Hardswish": (nn.Hardswish(), Limits(-3.0, math.inf)),
    "GELU": (nn.GELU(), None),
    "LeakyReLU": (nn.LeakyReLU(), None),
    "none": (nn.Identity(), None),
}


def limits_of(model):
    graph = exported(model.eval(), torch.randn(2, 3, 4, 4)).graph
    (layer,) = (node for node in graph.nodes if "conv2d" in str(node.target))
    return limits_behind(layer)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_limits_are_those_of_the_activation(name):
    activation, limits = ACTIVATIONS[name]
    assert limits_of(nn.Sequential(nn.Conv2d(3, 4, 1), activation)) == limits


def test_a_value_that_something_else_reads_has_none():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            x = self.conv(x)
            return x.relu() + 2 * x

    assert limits_of(Both()) is None


@pytest.mark.parametrize("name", [name for name, (_, limits) in ACTIVATIONS.items() if limits])
def test_the_gap_is_the_least_that_brings_the_dense_answer(name):
    activation, limits = ACTIVATIONS[name]
    generator = torch.Generator().manual_seed(0)
    dense, cut = (5 * torch.randn(4000, dtype=torch.float64, generator=generator) for _ in range(2))
    gap = limits.gap(dense, cut)
    wanted = activation(dense.clone())
    torch.testing.assert_close(activation(cut + gap), wanted)
    changed = gap.abs() > 0.01
    assert (gap.abs() <= (dense - cut).abs() + 1e-12).all() and 0.2 < changed.double().mean() < 0.95
    assert not torch.isclose(activation(cut + 0.9 * gap), wanted)[changed].any()


class Chain(nn.Module):
    """A wide layer that a narrow one reads, whose answers ReLU cuts off."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x):
        return self.fc(self.conv2(self.conv1(x).relu()).relu().mean((2, 3)))


@torch.no_grad()
def test_the_second_fit_leaves_less_behind_the_activation(monkeypatch):
    torch.manual_seed(0)
    model, images = Chain().eval(), torch.randn(96, 3, 8, 8)
    group = next(g for g in traced_network(model, (3, 8, 8)).groups if g.name == "conv1")
    model.conv2.weight *= 3

    def error():
        light, _ = prune_by_graph(model, [(group, torch.arange(4))], images.split(32), "ridge")
        behind = [net.conv2(net.conv1(images).relu()).relu() for net in (model, light)]
        return float((behind[0] - behind[1]).norm() / behind[0].norm())

    twice = error()
    monkeypatch.setattr(GraphReconstruction, "_rounds", lambda self, fit: [None])
    assert twice < 0.97 * error()
