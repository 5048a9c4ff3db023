"""Parts that must keep equal counts: where code chunks an axis, or splits it by one width."""

import copy

import pytest
import torch
from hypothesis import given, settings, strategies as st
from small_networks import Halving, Slicing
from torch import nn

import agflow
from agflow.models import adapter_for, count_macs, describe_groups
from agflow.models.channel_group import Attribute, Member, Run, Tap
from agflow.models.group_weights import weights_of
from agflow.models.slicing import cut_groups
from agflow.models.tracing.network import traced_network
from agflow.models.tracing.proof import Proof
from agflow.pruning import Allocation
from agflow.pruning.masks import masked

SIZE = (3, 8, 8)


class Scales(nn.Module):
    """Four pieces by one width, each convolved after it was added to the last, as Res2Net does."""

    def __init__(self, first=False):
        super().__init__()
        self.first, self.width = first, 6
        self.conv1, self.bn1 = nn.Conv2d(3, 24, 1), nn.BatchNorm2d(24)
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.conv3, self.fc = nn.Conv2d(24, 8, 1), nn.Linear(8, 5)

    def forward(self, x):
        pieces = torch.split(self.bn1(self.conv1(x)).relu(), self.width, 1)
        found, last = [], 0
        for i, (conv, piece) in enumerate(zip(self.convs, pieces, strict=False)):
            last = conv(piece if self.first or not i else last + piece).relu()
            found.append(last)
        x = torch.cat([*found, pieces[-1]], 1)
        return self.fc(self.conv3(x).relu().mean((2, 3)))


class Paths(nn.Module):
    """A residual stream, half of which each path reads, as in selective kernels."""

    def __init__(self):
        super().__init__()
        self.width = 12
        self.stem, self.out = nn.Conv2d(3, 12, 1), nn.Conv2d(8, 12, 1)
        self.paths = nn.ModuleList(nn.Conv2d(6, 8, 3, padding=k, dilation=k) for k in (1, 2))
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x).relu()
        halves = torch.split(x, self.width // 2, 1)
        inner = sum(path(half) for path, half in zip(self.paths, halves, strict=True))
        return self.fc((x + self.out(inner.relu())).relu().mean((2, 3)))


class Stages(nn.Module):
    """Halves of which one goes on through residual blocks, all concatenated, as in C2f."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 1), nn.Conv2d(24, 6, 1)
        self.inner, self.back = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 8, 1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        found = list(self.conv1(x).relu().chunk(2, 1))
        found.append(found[-1] + self.back(self.inner(found[-1]).relu()))
        return self.fc(self.conv2(torch.cat(found, 1)).relu().mean((2, 3)))


class Thirds(nn.Module):
    """Three chunks on the last axis, each flattened with the places before it."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(3, 12)
        self.read = nn.ModuleList(nn.Linear(4 * 64, 3) for _ in range(3))
        self.fc = nn.Linear(9, 5)

    def forward(self, x):
        chunks = self.fc1(x.permute(0, 2, 3, 1)).tanh().chunk(3, -1)
        read = [layer(chunk.flatten(1)) for layer, chunk in zip(self.read, chunks, strict=True)]
        return self.fc(torch.cat(read, 1).relu())


TIED = {  # by network, the tied group: its units and parts
    "halves": (Halving, "conv1", 8, 2),
    "scales": (Scales, "conv1", 24, 4),
    "scales, not added": (lambda: Scales(first=True), "conv1", 24, 4),
    "paths": (Paths, "stem", 12, 2),
    "stages": (Stages, "conv1", 16, 2),
    "thirds": (Thirds, "fc1", 12, 3),
}


def network_of(kind):
    torch.manual_seed(0)
    model = kind().eval()
    return model, traced_network(model, SIZE).groups


def drawn(groups, seed=0):
    """Units to keep, equally many of each part."""
    generator = torch.Generator().manual_seed(seed)
    cuts = []
    for group in groups:
        units = group.units // group.parts
        count = 1 + int(torch.randint(units - 1, (), generator=generator))
        firsts = range(0, group.units, units)
        keep = [first + torch.randperm(units, generator=generator)[:count] for first in firsts]
        cuts.append((group, torch.cat(keep).sort().values))
    return cuts


@torch.no_grad()
def check(model, groups, seed=0):
    """What is cut computes what is masked, in float64."""
    model = copy.deepcopy(model).double().eval()
    images = torch.randn(2, *SIZE, dtype=torch.float64)
    cuts = drawn([group for group in groups if not group.may_vanish], seed)
    with masked(adapter_for(model), model, cuts):
        expected = model(images)
    cut_groups(model, cuts)
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", TIED)
def test_parts_are_one_group(kind):
    make, name, units, parts = TIED[kind]
    model, groups = network_of(make)
    (tied,) = (group for group in groups if group.parts > 1)
    assert (tied.name, tied.units, tied.parts) == (name, units, parts)
    (tap,) = tied.seen_at
    assert tap.count == units and tied.unit_macs > 0
    for seed in range(4):
        check(model, groups, seed)


def test_members_say_which_part_they_hold():
    _, groups = network_of(Halving)
    members = {member.name: member for member in groups[0].members}
    assert members["conv1.weight"].runs == (Run(0),)
    assert members["right.weight"].runs == (Run(0, unit=4, count=4),)
    assert members["right.weight"].unit_of(4, 8).tolist() == [4, 5, 6, 7]
    assert members["right.weight"].kept(4, 8, torch.tensor([0, 3, 5, 6])).tolist() == [1, 2]
    assert groups[0].taps == (Tap("conv1", "output", 0, 8, 1),)
    runs = [member["runs"] for member in groups[0].to_json()["members"]]
    assert runs == [[[0, 1, 1, 0]], [[0, 1, 1, 0]], [[0, 1, 1, 0, 0, 4]], [[0, 1, 1, 0, 4, 4]]]


def test_the_width_that_the_code_splits_by_follows():
    model, groups = network_of(Scales)
    assert groups[0].attributes == (Attribute("", "width"),)
    cut_groups(model, [(groups[0], torch.tensor([0, 3, 7, 11, 12, 13, 19, 20]))])
    assert model.width == 2 and [conv.in_channels for conv in model.convs] == [2, 2, 2]
    with torch.no_grad():
        assert model(torch.randn(1, *SIZE)).shape == (1, 5)


def test_what_can_be_cut_part_by_part_stays_so():
    _, groups = network_of(Slicing)  # the second half alone: the first ends at a number
    assert [(group.units, group.parts) for group in groups] == [(4, 1), (6, 1), (6, 1)]


def test_the_weights_of_a_part_are_zero_at_the_others():
    model, groups = network_of(Halving)
    (made, _), (left, axis), (right, _) = weights_of(model, groups[0])
    assert made.shape == (8, 3) and axis == 1 and left.shape == right.shape == (6, 8)
    assert torch.equal(left[:, :4], model.left.weight.flatten(1)) and not left[:, 4:].any()
    assert torch.equal(right[:, 4:], model.right.weight.flatten(1)) and not right[:, :4].any()
    assert Member("x", 0, "through", (Run(1, 2, unit=1, count=2),)).unit_of(6, 3).tolist() == (
        [-1, 1, 1, 2, 2, -1]
    )


def test_proofs_keep_equally_many_of_each_part():
    model, groups = network_of(Scales)
    proof = Proof(model, SIZE)
    for turn in range(3):
        (_, keep_U), *_ = proof.draw(groups, turn)
        counts = torch.bincount(keep_U // 6, minlength=4)
        assert 0 < counts.min() == counts.max() < 6


@pytest.mark.parametrize("kind", ["scales", "paths", "stages"])
def test_plans_keep_equally_many_and_the_repair_helps(kind):
    model, groups = network_of(TIED[kind][0])
    model.input_size = SIZE
    images = torch.randn(64, *SIZE)
    loader = [(part, torch.zeros(len(part), dtype=torch.int64)) for part in images.split(32)]
    (tied,) = (group for group in groups if group.parts > 1)
    statistics = agflow.calibrate(model, loader, loss="self", groups=[tied.kind, "conv"])
    plan = agflow.plan(statistics, macs=0.6, allocation=Allocation(round_to=1))
    units = tied.units // tied.parts
    counts = torch.bincount(torch.from_numpy(plan.kept(tied.name)) // units, minlength=tied.parts)
    assert 0 < counts.min() == counts.max() < units
    lights = [agflow.prune(model, plan, loader, compensate=how) for how in ("none", "ridge")]
    assert all(count_macs(light) <= 0.6 * count_macs(model) for light in lights)
    with torch.no_grad():
        gaps = [float((light(images) - model(images)).norm()) for light in lights]
    assert gaps[1] < gaps[0]
    assert f"{tied.units} units in {tied.parts} parts" in str(describe_groups(model))


class Drawn(nn.Module):
    """Layers in a row, each of which deals its maps out in equal parts of one treatment each."""

    def __init__(self, steps):
        super().__init__()
        self.steps, width = steps, 3
        self.convs, self.inner = nn.ModuleList(), nn.ModuleList()
        for parts, units, kinds in steps:
            self.convs.append(nn.Conv2d(width, parts * units, 1))
            out = [units if kind != "read" else 5 for kind in kinds]
            self.inner.append(
                nn.ModuleList(
                    nn.Identity() if kind == "pass" else nn.Conv2d(units, n, 3, padding=1)
                    for kind, n in zip(kinds, out, strict=True)
                )
            )
            width = sum(out)
        self.fc = nn.Linear(width, 4)

    def forward(self, x):
        for (parts, _, kinds), conv, inner in zip(self.steps, self.convs, self.inner, strict=True):
            found = []
            for kind, layer, piece in zip(
                kinds, inner, conv(x).tanh().chunk(parts, 1), strict=True
            ):
                read = layer(piece)
                found.append(piece + read if kind == "add" else read)
            x = torch.cat(found, 1)
        return self.fc(x.mean((2, 3)))


@st.composite
def steps(draw):
    found = []
    for _ in range(draw(st.integers(1, 2))):
        parts = draw(st.integers(2, 4))
        kinds = draw(
            st.lists(st.sampled_from(["read", "add", "pass"]), min_size=parts, max_size=parts)
        )
        found.append((parts, draw(st.sampled_from([4, 6])), kinds))
    return found


@settings(max_examples=4, deadline=None)
@given(steps(), st.integers(0, 99))
def test_random_networks_of_chunks(layers, seed):
    model, groups = network_of(lambda: Drawn(layers))
    tied = {group.name: group.parts for group in groups if group.parts > 1}
    # Where all parts pass as they are into one concatenation, each can be cut by itself.
    assert tied == {
        f"convs.{i}": parts for i, (parts, _, kinds) in enumerate(layers) if set(kinds) != {"pass"}
    }
    check(model, groups, seed)
