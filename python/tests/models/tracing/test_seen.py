"""Taps of traced groups: hooks see the units there, and in a cut model those that are left."""

import pytest
import torch
from small_networks import Concatenating, Grouped, ResNet, Splitting, SqueezeExcite
from torch import nn

import agflow
from agflow._utils.hooks import temporary_hooks
from agflow.models import adapter_for
from agflow.models.channel_group import Tap, channels_of
from agflow.models.slicing import cut_groups
from agflow.models.tracing.network import traced_network
from agflow.pruning import Allocation
from agflow.pruning.masks import masked
from agflow.recipes import ShrinkOptions

SIZE = (3, 8, 8)


class Parts(nn.Module):
    """Grouped convolutions of two branches, concatenated: units in the groups lie several times."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 8, 1)
        self.by_a = nn.Conv2d(12, 12, 3, padding=1, groups=4)
        self.read = nn.Conv2d(20, 5, 1)
        self.fc = nn.Linear(5, 4)

    def forward(self, x):
        a = self.by_a(self.a(x).relu()).relu()
        a = a.unflatten(1, (4, -1))
        a = (a * a.mean((0, 3, 4)).softmax(0)[:, :, None, None]).flatten(1, 2)  # groups stay
        return self.fc(self.read(torch.cat([a, self.b(x).relu()], 1)).relu().mean((2, 3)))


class SplitAttention(nn.Module):
    """Two halves of the same units, weighed by a softmax over both."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 1)
        self.norm = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 16, 3, padding=1, groups=2)
        self.fc1, self.fc2 = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 16, 1)
        self.conv3 = nn.Conv2d(8, 6, 1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        x = self.conv2(self.norm(self.conv1(x)).relu()).relu()
        x = x.reshape(len(x), 2, 8, *x.shape[2:])
        gate = self.fc2(self.fc1(x.sum(1).mean((2, 3), keepdim=True)).relu())
        gate = gate.view(len(x), 1, 2, -1).transpose(1, 2).softmax(1)
        x = (x * gate.reshape(len(x), 2, 8, 1, 1)).sum(1)
        return self.fc(self.conv3(x).mean((2, 3)))


class OnChannels(nn.Linear):
    """A linear layer of maps, which it permutes itself."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Permuting(nn.Module):
    """Channels of maps that a linear layer reads."""

    def __init__(self):
        super().__init__()
        self.conv, self.read, self.fc = nn.Conv2d(3, 8, 1), OnChannels(8, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.read(self.conv(x).relu()).relu().mean((2, 3)))


class Bare(nn.Module):
    """Products with parameters of its own, by no layer."""

    def __init__(self):
        super().__init__()
        self.made = nn.Parameter(torch.randn(8, 3, 1, 1))
        self.read = nn.Parameter(torch.randn(6, 8, 1, 1))
        self.inner, self.fc = nn.Conv2d(6, 6, 1), nn.Linear(6, 4)

    def forward(self, x):
        x = nn.functional.conv2d(nn.functional.conv2d(x, self.made).relu(), self.read)
        return self.fc(self.inner(x).relu().mean((2, 3)))


class Repeating(nn.Module):
    """One block runs twice, and its layers on a smaller map once more."""

    def __init__(self):
        super().__init__()
        self.stem, self.up, self.down = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 9, 1), nn.Conv2d(9, 6, 1)
        self.fc = nn.Linear(6, 4)

    def block(self, x):
        return x + self.down(self.up(x).relu())

    def forward(self, x):
        x = self.block(self.block(self.stem(x)))
        return self.fc(self.block(nn.functional.max_pool2d(x, 2)).relu().mean((2, 3)))


def rows_at(model, group, images):
    """What hooks see at the taps, as rows of the units' channels."""
    rows = []

    def note(tap):
        def noted(y):
            y = y.detach().clone().movedim(tap.axis, -1)
            rows.append(y[..., tap.channels].flatten(0, -2))

        module = model.get_submodule(tap.module)
        if tap.side == "input":
            return module.register_forward_pre_hook(lambda _, inputs: noted(inputs[0]))
        return module.register_forward_hook(lambda _, inputs, output: noted(output))

    with torch.no_grad(), temporary_hooks(note(tap) for tap in group.seen_at):
        model(images)
    return torch.cat(rows)


KINDS = (
    *(Parts, SplitAttention, Permuting, Concatenating, Grouped, ResNet),
    *(Splitting, SqueezeExcite, Repeating),
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_model_has_at_its_taps_what_the_mask_leaves(kind):
    torch.manual_seed(0)
    model = kind().double().eval()
    images = torch.randn(2, *SIZE, dtype=torch.float64)
    groups = [group for group in traced_network(model, SIZE).groups if not group.may_vanish]
    for group in groups:
        whole = rows_at(model, group, images)
        assert whole.shape[1] == group.units * group.unit_width
        keep_U = torch.arange(1, group.units)
        with masked(adapter_for(model), model, [(group, keep_U)]):
            kept = rows_at(model, group, images)[:, channels_of(keep_U, group.unit_width)]
        cut = kind().double().eval()
        cut.load_state_dict(model.state_dict())
        cut_groups(cut, [(group, keep_U)])
        (own,) = (g for g in traced_network(cut, SIZE).groups if g.name == group.name)
        assert torch.allclose(rows_at(cut, own, images), kept, atol=1e-9)


def test_units_that_lie_several_times_along_an_axis_have_a_tap_for_each_time():
    (group,) = (g for g in traced_network(SplitAttention(), SIZE).groups if g.name == "conv1")
    places = [(tap.first, tap.count, tap.axis) for tap in group.taps]
    assert places == [(0, 6, 1), (6, 6, 1)] and {tap.module for tap in group.taps} == {"conv2"}
    parts = {g.name: g for g in traced_network(Parts(), SIZE).groups}
    assert parts["by_a"].units == 3 and parts["by_a"].reader == "read"
    assert [(tap.first, tap.count) for tap in parts["by_a"].taps] == [
        (0, 3),
        (3, 3),
        (6, 3),
        (9, 3),
    ]


def test_the_axis_is_that_of_the_tensor_which_enters_the_layer():
    group = traced_network(Permuting(), SIZE).groups[0]
    assert group.taps == (Tap("read", "input", axis=1),)


def test_what_no_layer_sees_is_kept_with_the_reason():
    network = traced_network(Bare(), SIZE)
    assert [(group.name, group.units) for group in network.groups] == [("read", 6), ("inner", 6)]
    kept = network.kept[0]
    assert (kept.name, kept.channels) == ("made", 8)
    assert "no layer of torch" in kept.reason and "nn.Conv2d" in kept.reason


def test_units_of_a_layer_that_runs_several_times_are_scored_by_all_calls():
    torch.manual_seed(0)
    model, images, labels = Repeating().eval(), torch.randn(8, *SIZE), torch.arange(8) % 4
    group = next(group for group in traced_network(model, SIZE).groups if group.name == "up")
    assert (group.units, group.reader, group.taps) == (9, "", (Tap("down", "input", axis=1),))
    statistics = agflow.calibrate(model, [(images, labels)])
    rows = statistics.rows_of("up")
    assert (statistics["rows"][rows] == 8 * (64 + 64 + 16)).all()
    seen = []
    hook = model.down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    loss = nn.functional.cross_entropy(model(images), labels, reduction="sum")
    hook.remove()
    gradients = torch.autograd.grad(loss, seen)
    flow = sum((y * g).abs().sum((0, 2, 3)) for y, g in zip(seen, gradients, strict=True))
    found = torch.tensor(statistics["sum_abs_yg"][rows])
    torch.testing.assert_close(found, flow.detach().double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [Parts, SplitAttention, Permuting, Repeating])
def test_units_of_such_taps_are_scored_and_pruned(kind):
    torch.manual_seed(0)
    model = kind().eval()
    statistics = agflow.calibrate(model, [(torch.randn(8, *SIZE), torch.arange(8) % 4)])
    plan = agflow.plan(statistics, macs=0.8, allocation=Allocation(round_to=1))
    light = agflow.prune(model, plan, compensate="none")
    assert light(torch.randn(2, *SIZE)).shape == (2, 4)


class Auxiliary(nn.Module):
    """A branch that only training needs: it runs, and its answers are given back second or not."""

    def __init__(self, both=False):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 4)
        self.aux = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 4))
        self.both = both

    def forward(self, x):
        x = self.stem(x).relu()
        answers = self.fc(self.body(x).relu().mean((2, 3))), self.aux(x.mean((2, 3)))
        return answers if self.both else answers[0]


@pytest.mark.parametrize("both", [False, True])
def test_units_are_seen_where_a_gradient_comes(both):
    torch.manual_seed(0)
    model = Auxiliary(both).eval()
    network = traced_network(model, SIZE)
    assert {group.name: group.taps[0].module for group in network.groups} == {
        "stem": "body",
        "body": "fc",
    }
    (kept,) = (str(kept) for kept in network.kept if kept.name == "aux.0")
    assert "24 channels kept" in kept and "no gradient would score them" in kept
    images = torch.randn(16, *SIZE)
    light = agflow.shrink(
        model,
        images,
        macs=0.4,
        options=ShrinkOptions(loss="features" if both else "self"),
        report=None,
    )
    assert light.stem.out_channels < 16 and light.aux[0].in_features < 16
    assert light.aux[0].out_features == 24
