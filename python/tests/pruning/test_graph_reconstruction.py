"""Sequential reconstruction over the graph, on small convolutional networks of every kind."""

import copy
import functools

import pytest
import small_networks
import torch
from torch import nn

from agflow.errors import InvalidValueError
from agflow.models import adapter_for
from agflow.models.slicing import tensor_of
from agflow.models.tracing.network import traced_network
from agflow.pruning import graph_reconstruction
from agflow.pruning.graph_pruner import prune_by_graph
from agflow.pruning.masks import masked


class Bottleneck(nn.Module):
    """Three convolutions; the shortcut is projected before or after the branch has run."""

    def __init__(self, shortcut_first):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.conv1, self.bn1 = nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6)
        self.conv3, self.bn3 = nn.Conv2d(6, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.project, self.bn = nn.Conv2d(8, 12, 1, 2, bias=False), nn.BatchNorm2d(12)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(12, 5)
        self.shortcut_first = shortcut_first

    def forward(self, x):
        x = self.relu(self.norm(self.stem(x)))
        if self.shortcut_first:
            shortcut = self.bn(self.project(x))
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(out)))))
        if not self.shortcut_first:
            shortcut = self.bn(self.project(x))
        out += shortcut
        return self.fc(self.relu(out).mean((2, 3)))


class PreActivation(nn.Module):
    """Normalisation and activation before each convolution, and no bias anywhere."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 10, 3, padding=1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(10), nn.Conv2d(10, 8, 3, padding=1, bias=False)
        self.norm, self.fc = nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.conv2(self.bn2(self.conv1(self.bn1(x).relu())).relu())
        return self.fc(self.norm(x).relu().mean((2, 3)))


class Scaled(nn.Module):
    """A branch of linear layers on the last axis, scaled by a vector, as ConvNeXt has it."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.gamma = nn.Parameter(torch.full((8,), 0.3))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        out = self.fc2(self.fc1(x.permute(0, 2, 3, 1)).relu()).permute(0, 3, 1, 2)
        return self.fc((x + out * self.gamma.reshape(1, -1, 1, 1)).mean((2, 3)))


class Flattened(nn.Module):
    """A plain chain with pooling, flattened into three linear layers, as VGG has it."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding="same")
        self.fc1, self.fc2 = nn.Linear(8 * 16, 12), nn.Linear(12, 5)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.conv2(self.conv1(x).relu()).relu(), 2)
        return self.fc2(self.fc1(x.flatten(1)).relu())


class JoinedBiases(nn.Module):
    """A layer whose bias is two parameters joined, as EVA has it, and one that reads a table."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.fc1, self.fc2 = nn.Linear(8, 12), nn.Linear(12, 8)
        self.wide = nn.Linear(8, 16, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))
        self.of_table = nn.Linear(2, 16)
        self.register_buffer("table", torch.randn(16, 2))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).mT
        x = x + self.fc2(self.fc1(x).relu())
        bias = torch.cat([self.q_bias, self.v_bias])
        x = nn.functional.linear(x, self.wide.weight, bias) + self.of_table(self.table)
        return self.fc(x.tanh().mean(1))


KINDS = {
    "joined biases": JoinedBiases,
    "basic": small_networks.ResNet,
    "bottleneck, shortcut first": lambda: Bottleneck(True),
    "bottleneck, branch first": lambda: Bottleneck(False),
    "pre-activation": PreActivation,
    "scaled": Scaled,
    "flattened": Flattened,
    "squeeze-excite": small_networks.SqueezeExcite,
    "concatenation": small_networks.Concatenating,
    "grouped": small_networks.Grouped,
}

MASKED_ONLY = "grouped", "joined biases"  # some of their layers are not fitted


@functools.cache
def network(kind):
    """A network with weights that hide nothing, and its groups; tests leave it as it is."""
    torch.manual_seed(0)
    model = KINDS[kind]().eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.normal_(0, 0.1), norm.running_var.uniform_(0.5, 1.5)
        nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.normal_(norm.bias, 0, 0.1)
    groups = [g for g in traced_network(model, (3, 8, 8)).groups if not g.may_vanish]
    assert groups
    return model, groups


def images(seed, count=96):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def half(groups):
    return [(group, torch.arange(0, group.units, 2)) for group in groups]


@torch.no_grad()
def pruned(model, cuts, compensate, seed=1):
    return prune_by_graph(model, cuts, images(seed).split(20), compensate)


@functools.cache
def repaired(kind, compensate):
    """The network of a kind without half of its units, and its reference."""
    model, groups = network(kind)
    return pruned(model, half(groups), compensate)


@torch.no_grad()
def distance(model, other, seed=2):
    expected = model(images(seed))
    return float((other(images(seed)) - expected).norm() / expected.norm())


@torch.no_grad()
def duplicate(model, groups):
    """Make every second unit of each group a copy of the one before it."""
    for group in groups:
        for member in (*group.of("producer"), *group.of("through")):
            tensor = tensor_of(model, group, member)
            units_S = member.unit_of(tensor.shape[member.axis], group.units)
            lead = [(units_S == u).nonzero().flatten() for u in range(0, group.units - 1, 2)]
            copies = [(units_S == u).nonzero().flatten() for u in range(1, group.units, 2)]
            values = tensor.index_select(member.axis, torch.cat(lead))
            tensor.index_copy_(member.axis, torch.cat(copies), values)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cut_network_is_the_masked_one(kind):
    model, _ = network(kind)
    for compensate in ("none", "ridge"):
        light, reference = repaired(kind, compensate)
        assert distance(reference, light) < 1e-5
        assert sum(p.numel() for p in light.parameters()) < sum(
            p.numel() for p in model.parameters()
        )


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in MASKED_ONLY])
def test_copies_go_without_loss(kind):
    model, groups = copy.deepcopy(network(kind))
    duplicate(model, groups)
    light, _ = pruned(model, half(groups), "ridge")
    none, _ = pruned(model, half(groups), "none")
    assert distance(model, light) < 2e-3 < 0.05 < distance(model, none)


@pytest.mark.parametrize("kind", KINDS)
def test_the_better_repair_has_the_smaller_error_on_other_images(kind):
    model, _ = network(kind)
    none, at_once, sequential = (
        distance(model, repaired(kind, compensate)[0])
        for compensate in ("none", "ridge_at_once", "ridge")
    )
    assert at_once < none and sequential < 1.1 * at_once


@pytest.mark.parametrize("kind", ["basic", "bottleneck, shortcut first"])
def test_training_begins_from_statistics_that_match(kind):
    model, groups = network(kind)
    cuts = [cut for cut in half(groups) if cut[0].kind == "conv"]
    light, _ = pruned(model, cuts, "ridge")
    inner = {"basic": "layer1.0", "bottleneck, shortcut first": ""}[kind]
    name = f"{inner}.bn2" if inner else "bn3"
    norm, seen = light.get_submodule(name), []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        light(images(1))
    rows = seen[0].movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(norm.running_mean, rows.mean(0), rtol=0.01, atol=1e-3)
    torch.testing.assert_close(norm.running_var, rows.var(0), rtol=0.02, atol=1e-3)


def test_the_model_stays_as_it_is_and_so_do_its_layers():
    model, groups = network("basic")
    before = copy.deepcopy(model.state_dict())
    light, _ = pruned(model, half(groups), "ridge")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert list(dict(light.named_parameters())) == list(dict(model.named_parameters()))


def test_a_layer_of_many_inputs_is_fitted_through_its_rows(monkeypatch):
    model, groups = network("flattened")
    whole, _ = pruned(model, half(groups), "ridge")
    monkeypatch.setattr(graph_reconstruction, "LARGEST_GRAM", 40)
    with pytest.warns(
        UserWarning, match="fc1 reads 64 inputs that stay: it is fitted to 4,096 rows"
    ):
        by_rows, _ = pruned(model, half(groups), "ridge")
    assert distance(whole, by_rows) < 1e-3 < distance(model, whole)


def test_rows_are_sampled_beyond_a_number(monkeypatch):
    model, groups = network("basic")
    whole, _ = repaired("basic", "ridge")
    monkeypatch.setattr(graph_reconstruction, "MOST_ROWS", 96 * 20)
    sampled, again = (pruned(model, half(groups), "ridge")[0] for _ in range(2))
    assert distance(sampled, again) == 0
    assert 0 < distance(whole, sampled) < 0.5 * distance(model, whole)


def test_mean_needs_a_shift():
    model, groups = network("pre-activation")
    with pytest.raises(InvalidValueError, match="conv2 has no bias and no normalisation behind"):
        pruned(model, half(groups), "mean")


def test_branches_go_and_the_others_take_back_their_part():
    torch.manual_seed(0)
    model = KINDS["basic"]().eval()
    groups = {group.name: group for group in traced_network(model, (3, 8, 8)).groups}
    branch, inside, other = (
        groups[name] for name in ("layer1.0", "layer1.0.conv1", "layer1.1.conv1")
    )
    cuts = [(branch, torch.zeros(0, dtype=torch.int64)), *half([inside, other])]
    errors = {}
    for compensate in ("none", "ridge"):
        light, reference = pruned(model, cuts, compensate)
        assert isinstance(light.layer1[0], nn.Identity)
        with masked(adapter_for(model), reference, cuts):
            assert distance(reference, light) < 1e-5
        errors[compensate] = distance(model, light)
    assert errors["ridge"] < 0.7 * errors["none"]
