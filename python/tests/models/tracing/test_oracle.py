"""The same parameters are coupled as in Torch-Pruning's dependency graph, where that works."""

import pytest
import torch
import torch_pruning
import torchvision
from small_networks import Concatenating, ResNet, SqueezeExcite
from timm.models.densenet import DenseNet
from torch import nn

from agflow.models.tracing.network import traced_network

SMALL = {
    "residual": (ResNet, 8),
    "gate": (SqueezeExcite, 8),
    "concatenation": (Concatenating, 8),
    "densenet": (lambda: DenseNet(growth_rate=4, block_config=(2, 2), num_classes=5), 32),
}
WHOLE = {name: (getattr(torchvision.models, name), 64) for name in ("resnet18", "mobilenet_v2")}
WHOLE["vgg11_bn"] = (torchvision.models.vgg11_bn, 64)


def coupled(graph, names, module):
    """The layers that lose outputs or inputs with a module's first output channel."""
    group = graph.get_pruning_group(
        module, graph.get_pruner_of_module(module).prune_out_channels, [0]
    )
    found = set()
    for dependency, _ in group.items:
        target = dependency.target.module
        if isinstance(target, (nn.Conv2d, nn.Linear)):
            depthwise = getattr(target, "groups", 1) > 1
            out = graph.is_out_channel_pruning_fn(dependency.handler)
            found.add((names[target], "through" if depthwise else "out" if out else "in"))
        elif isinstance(target, nn.BatchNorm2d):
            found.add((names[target], "through"))
    return found


def own(group):
    sides = {"producer": "out", "consumer": "in", "through": "through"}
    return {
        (member.module, sides[member.role])
        for member in group.members
        if not (
            member.name.endswith("bias")
            and member.module in {other.module for other in group.of("producer")}
        )
    }


def check(make, size):
    torch.manual_seed(0)
    model = make().eval()
    images = torch.randn(1, 3, size, size)
    graph = torch_pruning.DependencyGraph().build_dependency(model, images)
    names = {module: name for name, module in model.named_modules()}
    groups = [g for g in traced_network(model, (3, size, size)).groups if g.members]
    assert groups
    for group in groups:
        first = model.get_submodule(group.of("producer")[0].module)
        assert own(group) == coupled(graph, names, first), group.name


@pytest.mark.parametrize("name", SMALL)
def test_the_same_layers_are_coupled(name):
    check(*SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_the_same_layers_are_coupled_in_whole_networks(name):
    check(*WHOLE[name])
