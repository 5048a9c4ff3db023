"""Norms over units: their means are over the kept units, in the cut model as in its reference."""

import pytest
import torch
from counted_networks import errors_of_a_cut
from torch import nn
from torch.nn import functional as F

from agflow.models import adapter_for
from agflow.models.image_sizes import note_size
from agflow.models.slicing import cut_groups
from agflow.models.tracing.by_graph import norms_of_kept_channels
from agflow.models.tracing.graph import exported
from agflow.models.tracing.graph_run import GraphRun
from agflow.models.tracing.network import traced_network
from agflow.models.tracing.normed import TAKES_MEANS
from agflow.pruning.graph_pruner import kept_positions
from agflow.pruning.masks import masked

SIZE = (3, 16, 16)


class ChannelNorm(nn.Module):
    """Of maps, as many repositories write it."""

    def __init__(self, width):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))

    def forward(self, x):
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class RmsNorm(nn.Module):
    """Of tokens, with the size of its own that the code reads."""

    def __init__(self, width):
        super().__init__()
        self.weight, self.shape = nn.Parameter(torch.rand(width)), (width,)

    def forward(self, x):
        return F.rms_norm(x, self.shape, self.weight, 1e-6)


class Response(nn.Module):
    """Global response normalisation of tokens."""

    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(1, 1, width))
        self.beta = nn.Parameter(torch.rand(1, 1, width))

    def forward(self, x):
        length = x.norm(dim=1, keepdim=True)
        return self.gamma * (x * length / (length.mean(-1, keepdim=True) + 1e-6)) + self.beta + x


class Block(nn.Module):
    def __init__(self, width, norm, inner=nn.Identity):
        super().__init__()
        self.norm, self.up, self.down = norm(width), nn.Linear(width, 24), nn.Linear(24, width)
        self.inner = inner(24)

    def forward(self, x):
        return x + self.down(self.inner(F.gelu(self.up(self.norm(x)))))


class Inline(Block):
    """Its norm is no module, and takes its size from the tensor."""

    def forward(self, x):
        x = F.layer_norm(x, (x.shape[-1],), self.norm.weight, self.norm.bias)
        return x + self.down(F.gelu(self.up(x)))


class Written(Block):
    """Root mean squares over the channels of maps, in the code of a block, with no weight."""

    def forward(self, x):
        maps = x.transpose(1, 2)
        maps = maps * torch.rsqrt(maps.square().mean(1, keepdim=True) + 1e-6)
        return x + self.down(F.gelu(self.up(maps.transpose(1, 2))))


class Sized(Block):
    """Its norm has the size from an attribute."""

    def __init__(self, width, norm):
        super().__init__(width, norm)
        self.width = width

    def forward(self, x):
        x = F.rms_norm(x, [self.width], self.norm.weight, 1e-6)
        return x + self.down(F.gelu(self.up(x)))


class Tokens(nn.Module):
    """A stream of tokens that two blocks and a merging of neighbours read."""

    def __init__(self, norm=nn.LayerNorm, inner=nn.Identity, blocks=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.blocks = nn.Sequential(*(blocks or (Block(16, norm, inner) for _ in range(2))))
        self.merged, self.reduce = nn.LayerNorm(32), nn.Linear(32, 8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
        x = self.merged(x.unflatten(1, (-1, 2)).flatten(2))
        return self.fc(self.reduce(x).relu().mean(1))


class Maps(nn.Module):
    def __init__(self, norm=None):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 3, padding=1), norm or ChannelNorm(16)
        self.body, self.fc = nn.Conv2d(16, 12, 3), nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(self.body(self.norm(self.stem(x))).relu().mean((2, 3)))


NETWORKS = {
    "layer norms and merging": (Tokens, {"blocks": 3, "reduce": 0}),
    "root mean squares": (lambda: Tokens(RmsNorm), {"blocks": 3}),
    "responses": (lambda: Tokens(inner=Response), {"blocks.0.up": 1, "blocks.1.up": 1}),
    "means written out": (Maps, {"stem": 1}),
    "layer norm in a block": (lambda: Tokens(blocks=[Inline(16, nn.LayerNorm)]), {"blocks": 2}),
    "mean squares in a block": (lambda: Tokens(blocks=[Written(16, nn.Identity)]), {"blocks": 2}),
    "norm by an attribute": (lambda: Tokens(blocks=[Sized(16, nn.LayerNorm)]), {"blocks": 2}),
    "norm that runs twice": (
        lambda: Tokens(blocks=[shared := Block(16, nn.LayerNorm), shared]),
        {"blocks.0": 3, "blocks.0.up": 0},
    ),
}
"""By name, a network and of some of its groups the number of norms."""


def network_of(name):
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval()
    return model, traced_network(model, SIZE)


def halves(network):
    generator = torch.Generator().manual_seed(1)
    return [
        (group, torch.randperm(group.units, generator=generator)[: group.units // 2].sort().values)
        for group in network.groups
        if not group.may_vanish
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_groups_under_norms_are_cut_as_they_are_masked(name):
    model, network = network_of(name)
    groups = {group.name: group for group in network.groups}
    for group, count in NETWORKS[name][1].items():
        assert len(groups[group].norms) == count
    model, cuts, images = model.double(), halves(network), torch.randn(3, *SIZE).double()
    note_size(model, SIZE)
    with masked(adapter_for(model), model, cuts), torch.no_grad():
        expected = model(images)
    cut_groups(model, cuts)
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_runs_as_the_cut_model(name):
    """The repair sees what the cut model computes."""
    model, network = network_of(name)
    cuts, images = halves(network), torch.randn(3, *SIZE)
    run = GraphRun(exported(model, images))
    weights = run.weights_of(model)
    for member, (tensor, axes) in kept_positions(model, cuts).items():
        for axis, stays_S in axes.items():
            mask_S = torch.zeros(tensor.shape[axis]).index_fill_(0, stays_S, 1)
            weights[member] = weights[member] * mask_S.view(
                [-1 if at == axis else 1 for at in range(tensor.ndim)]
            )
    norms = norms_of_kept_channels(run, cuts)
    found = run.run({run.image: images}, weights, 0, len(run.nodes), norms=norms)
    cut_groups(model, cuts)
    with torch.no_grad():
        torch.testing.assert_close(found[run.nodes[-1]], model(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_repair_is_better_than_none(name):
    model, _ = network_of(name)
    errors = errors_of_a_cut(model, SIZE, ("stage", "mlp", "conv"), macs=0.7)
    assert errors[0] < 0.8 * errors[1]


class Gate(nn.Module):
    """Reads a mean over the channels with weights of its own: no norm."""

    def __init__(self, width):
        super().__init__()
        self.scale, self.of_mean = nn.Parameter(torch.rand(width)), nn.Linear(1, 1)

    def forward(self, x):
        return x * self.scale * self.of_mean(x.mean(-1, keepdim=True)).sigmoid()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Tokens(blocks=[Block(16, Gate)]), "read by aten.mean"),
        (lambda: Maps(nn.GroupNorm(1, 16)), TAKES_MEANS),
    ],
)
def test_means_outside_of_a_norm_keep_the_units(make, reason):
    network = traced_network(make().eval(), SIZE)
    assert "stage" not in {group.kind for group in network.groups}
    assert reason in {kept.reason for kept in network.kept if kept.channels == 16}


class Halves(nn.Module):
    """Halves of one axis with a norm of both, and a norm of one."""

    def __init__(self):
        super().__init__()
        self.up, self.both, self.one = nn.Linear(48, 32), nn.LayerNorm(32), nn.LayerNorm(16)
        self.a, self.b, self.fc = nn.Linear(16, 8), nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x):
        a, b = self.both(self.up(x.flatten(1)[:, :48])).chunk(2, 1)
        return self.fc((self.a(self.one(a)) + self.b(b)).relu())


def test_equal_parts_have_their_norms_together():
    torch.manual_seed(0)
    model, images = Halves().eval().double(), torch.randn(6, 3, 8, 8).double()
    group = next(g for g in traced_network(model, (3, 8, 8)).groups if g.name == "up")
    assert (group.units, group.parts, {norm.module for norm in group.norms}) == (
        32,
        2,
        {"both", "one"},
    )
    note_size(model, (3, 8, 8))
    cuts = [(group, torch.tensor([0, 3, 5, 17, 30, 31]))]
    with masked(adapter_for(model), model, cuts), torch.no_grad():
        expected = model(images)
    cut_groups(model, cuts)
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-12)
