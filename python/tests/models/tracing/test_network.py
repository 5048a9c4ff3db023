import pytest
import torch
from counted_networks import macs_of
from small_networks import (
    Auxiliary,
    Concatenating,
    Grouped,
    Halving,
    ResNet,
    SignedStream,
    Slicing,
    Sorting,
    Splitting,
    SqueezeExcite,
)
from torch import nn

from agflow.models.channel_group import Attribute, Run, Tap
from agflow.models.slicing import cut_groups
from agflow.models.tracing import network
from agflow.models.tracing.network import traced_network
from agflow.models.tracing.proof import Proof
from agflow.models.tracing.rules.norms import STANDARDISED

SIZE = (3, 8, 8)


def network_of(kind, seed=0):
    torch.manual_seed(seed)
    model = kind().eval()
    return model, traced_network(model, SIZE)


def by_name(network):
    return {group.name: group for group in network.groups}


def test_inner_widths_and_the_stream_of_a_residual_network():
    _, network = network_of(ResNet)
    groups = by_name(network)
    assert [(g.name, g.kind, g.units) for g in network.groups] == [
        ("layer1", "stage", 8),
        ("layer1.0.conv1", "conv", 6),
        ("layer1.1.conv1", "conv", 10),
        ("layer1.0", "block", 1),
        ("layer1.1", "block", 1),
    ]
    inner = groups["layer1.0.conv1"]
    assert inner.seen_at == (Tap("layer1.0.conv2", "input", axis=1),)
    assert {(m.name, m.axis, m.role) for m in inner.members} == {
        ("layer1.0.conv1.weight", 0, "producer"),
        ("layer1.0.conv2.weight", 1, "consumer"),
        *(
            (f"layer1.0.bn1.{name}", 0, "through")
            for name in ("weight", "bias", "running_mean", "running_var")
        ),
    }
    assert (groups["layer1"].reader, groups["layer1"].seen_at[0].axis) == ("fc", -1)
    assert [str(kept) for kept in network.kept] == ["fc: 5 channels kept, the classes"]


def test_a_gate_goes_with_the_channels_that_it_scales():
    _, network = network_of(SqueezeExcite)
    groups = by_name(network)
    assert {name: group.units for name, group in groups.items()} == {
        "expand": 12,
        "fc1": 4,
        "project": 6,
    }
    assert {m.module for m in groups["expand"].of("producer")} == {"expand", "fc2"}
    assert {m.module for m in groups["expand"].of("through")} == {"expand", "depthwise", "fc2"}
    assert groups["expand"].reader == "project"


def test_parts_of_a_concatenation_are_groups_of_their_own():
    _, network = network_of(Concatenating)
    groups = by_name(network)
    assert groups["b"].seen_at == (Tap("both", "input", first=4, count=6, axis=1),)
    assert {m.name: m.runs for m in groups["b"].members}["norm.weight"] == (Run(4),)
    assert (groups["both"].unit_width, groups["both"].seen_at[0].axis) == (16, -1)
    assert groups["fc1"].kind == "mlp"


def test_whole_groups_of_a_convolution_are_units():
    _, network = network_of(Grouped)
    group = by_name(network)["conv1"]
    assert (group.units, group.unit_width, group.reader) == (4, 2, "conv3")
    assert group.unit_macs == 4 * 3 * 64 + 2 * 4 * 9 * 36 + 2 * 6 * 36


def test_what_is_not_proven_is_kept_and_named():
    _, network = network_of(Slicing)
    assert {name: group.units for name, group in by_name(network).items()} == {
        "conv1.2": 4,
        "left": 6,
        "right": 6,
    }
    assert (network.kept[0].name, network.kept[0].channels) == ("conv1", 4)
    assert "aten" not in network.kept[0].reason and network.kept[0].reason
    _, network = network_of(Sorting)
    assert set(by_name(network)) == {"conv2"}
    assert str(network.kept[0]) == "conv1: 8 channels kept, read by aten.sort"


def some_units(group, share, generator):
    """Random units, equally many of each part."""
    units = group.units // group.parts
    count = max(not group.may_vanish, int(share * units))
    firsts = range(0, group.units, units)
    drawn = [first + torch.randperm(units, generator=generator)[:count] for first in firsts]
    return torch.cat(drawn).sort().values


@pytest.mark.parametrize("kind", [ResNet, SqueezeExcite, Concatenating, Grouped, Halving])
def test_costs_are_those_of_the_cut_model(kind):
    _, network = network_of(kind)
    generator = torch.Generator().manual_seed(1)
    for share in (1, 0.7, 0.4):
        keeps = [some_units(group, share, generator) for group in network.groups]
        cuts = list(zip(network.groups, keeps, strict=True))
        cut, kept = kind().eval(), {group.name: len(keep) // group.parts for group, keep in cuts}
        cut_groups(cut, cuts)
        assert network.costs.macs(kept) == macs_of(cut, SIZE)
        assert network.costs.params(kept) == sum(p.numel() for p in cut.parameters())


def test_convolutions_have_the_form_whose_time_can_be_measured():
    layers = lambda kind: {
        product.name: product
        for product in network_of(kind)[1].costs.products
        if product.kind in ("convolution", "linear")
    }
    depthwise, residual = layers(SqueezeExcite)["depthwise"], layers(ResNet)
    assert depthwise.kind == "convolution" and (depthwise.kernel, depthwise.stride) == (9, 1)
    assert depthwise.outputs == depthwise.groups == ((1, ("expand",)),)
    assert depthwise.inputs == ((1, ()),)
    assert residual["fc"].kind == "linear" and residual["layer1.0.conv1"].rows == 64
    grouped = layers(Grouped)["conv2"]
    assert grouped.groups == ((1, ("conv1",)),) and grouped.inputs == ((4, ()),)


def test_the_model_is_left_as_it_was_and_known_by_its_shapes():
    model, network = network_of(ResNet)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    assert traced_network(model, SIZE) is network
    cut_groups(model, [(network.groups[1], torch.arange(3))])
    again = traced_network(model, SIZE)
    assert [group.units for group in again.groups] == [8, 3, 10, 1, 1]
    assert model.training
    assert torch.equal(before["fc.weight"], model.fc.weight)


def test_numbers_that_the_code_splits_by_are_found():
    _, network = network_of(Splitting)
    groups = by_name(network)
    assert groups["conv1"].attributes == (Attribute("", "size"),)
    assert groups["conv1.2"].attributes == (Attribute("", "other"),)
    assert [str(kept) for kept in network.kept] == ["fc: 5 channels kept, the classes"]


def test_a_branch_goes_where_its_module_is_an_identity_without_it():
    _, network = network_of(ResNet)
    block = by_name(network)["layer1.1"]
    assert (block.may_vanish, block.rounds, block.units, block.reader) == (True, False, 1, "")
    assert block.seen_at == (Tap("layer1.1.bn2", "output", axis=1),)
    assert block.unit_params == 2 * 10 * 8 * 9 + 2 * 10 + 2 * 8
    _, network = network_of(SignedStream)
    assert [group.name for group in network.groups if group.kind == "block"] == ["layer1.1"]


def test_what_only_training_reads_is_kept():
    _, network = network_of(Auxiliary)
    assert set(by_name(network)) == {"conv2"}
    assert "training mode" in network.kept[0].reason


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_groups_are_found_wherever_they_are_asked_for(mode):
    model = Grouped()
    with mode():
        network = traced_network(model, SIZE)
    assert [group.name for group in network.groups] == ["conv1", "conv3"]
    assert model.training


class Adapting(nn.Module):
    """Small images change its path for good; the other one reshapes by a number of its own."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.fc, self.wide = nn.Linear(4, 3), True

    def forward(self, x):
        self.wide = self.wide and x.shape[-1] > 32
        y = self.conv1(x).relu()
        if self.wide:
            y = y.view(len(y), 2, 4, *y.shape[2:]).flatten(1, 2)
        return self.fc(self.conv2(y).relu().mean((2, 3)))


@pytest.mark.parametrize("long", [False, True])
def test_cuts_are_proven_on_the_path_that_whole_images_take(long, monkeypatch):
    monkeypatch.setattr(network, "_LONG", 0 if long else 10**10)
    model = Adapting().eval()
    found = traced_network(model, (3, 64, 64))
    assert [group.name for group in found.groups] == ["conv2"]
    assert model.wide


class Fitted(nn.Module):
    """Adds an embedding of positions, which it fits to images of another size than 64."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 6, 1)
        self.places, self.fc = nn.Parameter(torch.randn(1, 8, 8, 8)), nn.Linear(6, 5)

    def forward(self, images):
        x, places = self.conv1(images), self.places
        if x.shape[-2:] != places.shape[-2:]:
            places = nn.functional.interpolate(places, x.shape[-2:], mode="bilinear")
        return self.fc(self.conv2(x + places).relu().mean((2, 3)))


class Windowed(nn.Module):
    """Fills images up to windows of 20 pixels."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3)
        self.fc = nn.Linear(6, 5)

    def forward(self, images):
        missing = -images.shape[-1] % 20
        if missing:
            images = nn.functional.pad(images, (0, missing, 0, missing))
        return self.fc(self.conv2(self.conv1(images).relu()).relu().mean((2, 3)))


def test_a_long_pass_is_proven_on_smaller_images_that_take_the_same_path(monkeypatch):
    sizes = []

    class Watched(Proof):
        def __init__(self, model, input_size):
            sizes.append(list(input_size))
            super().__init__(model, input_size)

    monkeypatch.setattr(network, "Proof", Watched)
    monkeypatch.setattr(network, "_LONG", 0)
    maps = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    fixed = nn.Sequential(nn.Flatten(), nn.Linear(12288, 8), nn.ReLU())
    models = ResNet(), maps, Adapting(), fixed, Fitted()
    for model in models:
        traced_network(model.eval(), (3, 64, 64))
    assert [size[1] for size in sizes] == [32, 32, 64, 64, 32]
    traced_network(Windowed().eval(), (3, 160, 160))
    assert sizes[-1] == [3, 80, 80]


class Scaled(nn.Module):
    """As a block of ConvNeXt: the branch lies in [B, H, W, C], is scaled and permuted back."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.up, self.down = nn.Linear(channels, 12), nn.Linear(12, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x):
        y = self.down(torch.tanh(self.up(self.depthwise(x).permute(0, 2, 3, 1))))
        return x + (self.scale * y).permute(0, 3, 1, 2)


class Unread(nn.Module):
    """A head that runs and that nothing reads, as the pooling of a Siglip that classifies."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.fc = nn.Conv2d(3, 8, 3, 2), Scaled(8), nn.Linear(8, 5)
        self.pooling = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8))

    def forward(self, images):
        x = self.block(torch.tanh(self.stem(images))).mean((2, 3))
        self.pooling(x)
        return self.fc(x)


def test_a_scaled_branch_goes_and_what_nothing_reads_is_no_group():
    model, network = network_of(Unread)
    block = by_name(network)["block"]
    assert (block.kind, block.seen_at) == ("block", (Tap("block.down", "output", axis=-1),))
    assert "pooling.0" not in by_name(network)
    assert "does not reach" in next(str(k) for k in network.kept if k.name == "pooling.0")
    images = torch.randn(2, *SIZE)
    with torch.no_grad():
        without = model.fc(torch.tanh(model.stem(images)).mean((2, 3)))
        cut_groups(model, [(block, torch.zeros(0, dtype=torch.int64))])
        assert torch.equal(model(images), without)


def test_standardised_weights_lose_outputs_and_say_why_they_keep_inputs():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            flat = self.weight.view(1, len(self.weight), -1)
            weight = nn.functional.batch_norm(flat, None, None, self.bias, training=True)
            return self._conv_forward(x, weight.view_as(self.weight), self.bias)

    model = nn.Sequential(
        *(nn.Conv2d(3, 6, 3), nn.ReLU(), Standardised(6, 8, 3), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)),
    )
    network = traced_network(model.eval(), (3, 8, 8))
    assert [(group.name, group.units) for group in network.groups] == [("2", 8)]
    kept = next(kept for kept in network.kept if kept.name == "0")
    assert (kept.channels, kept.reason) == (6, STANDARDISED)
