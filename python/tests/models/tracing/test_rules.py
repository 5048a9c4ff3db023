"""What each kind of operator does with axes, on small graphs: what is one class, what stays."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from traced_graphs import Cut, classes_of, traced

from agflow.models.tracing import axes


class Between(nn.Module):
    """A function between a convolution of 8 channels and one that reads what it makes of them."""

    def __init__(self, function, *layers, into=None):
        super().__init__()
        self.first, self.function = nn.Conv2d(3, 8, 3, padding=1), function
        self.layers = nn.ModuleList(layers)
        width = into or function(torch.zeros(2, 8, 8, 8), *layers).shape[1]
        self.last = nn.Conv2d(width, 4, 1)

    def forward(self, images):
        return self.last(self.function(self.first(images), *self.layers)).mean((2, 3))


def found_by(model, *shape):
    """The extents of the classes; the cut of half of each equals the mask."""
    torch.manual_seed(0)
    tracer = traced(model.eval(), *shape)
    found = classes_of(tracer)
    keep = {a: torch.randperm(a.extent)[: (a.extent + 1) // 2].sort().values for a in found}
    shape = shape or (2, 3, 8, 8)
    images = torch.randn(shape, dtype=torch.float64)
    assert not Cut(model.double(), tracer, keep).differences(images)
    return sorted(atom.extent for atom in found), tracer


def stays(model, *shape):
    """The barrier of the first convolution, of which no channel may go."""
    extents, tracer = found_by(model, *shape)
    (barrier,) = [b for b in tracer.barriers if b.parameter == "first.weight"]
    assert barrier.channels == 8
    assert barrier.module == "first"
    return barrier.operator


def free(function, *layers):
    """The extents of the classes of a function between two convolutions."""
    return found_by(Between(function, *layers))[0]


def flags(name):
    return lambda x, *_: getattr(F, name)(x)


ACTIVATIONS = (
    "relu relu6 gelu silu sigmoid tanh hardswish hardsigmoid hardtanh elu selu celu mish softplus "
    "leaky_relu logsigmoid softsign tanhshrink hardshrink softshrink rrelu"
).split()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_leave_channels_apart(name):
    assert free(flags(name)) == [8]


def test_prelu_has_a_slope_for_each_channel_or_one_for_all():
    assert free(lambda x, act: act(x), nn.PReLU(8)) == [8]
    assert free(lambda x, act: act(x), nn.PReLU()) == [8]


CONVOLUTIONS = {
    "plain": (nn.Conv2d(8, 6, 3), [6, 8]),
    "strided": (nn.Conv2d(8, 6, 3, stride=2, padding="valid", dilation=2), [6, 8]),
    "same": (nn.Conv2d(8, 6, 3, padding="same", bias=False), [6, 8]),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8), [8]),
    "multiplied": (nn.Conv2d(8, 24, 3, groups=8), [3, 8]),
    "grouped": (nn.Conv2d(8, 12, 3, groups=2), [2, 4, 6]),
    "one": (nn.Conv2d(8, 1, 3), [8]),
    "transposed": (nn.ConvTranspose2d(8, 6, 2, stride=2), [6, 8]),
    "transposed in groups": (nn.ConvTranspose2d(8, 6, 2, stride=2, groups=2), [2, 3, 4]),
    "transposed depthwise": (nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8), [8]),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(kind):
    layer, extents = CONVOLUTIONS[kind]
    assert free(lambda x, layer: layer(x), layer) == extents


def test_a_transposed_kernel_is_read_along_its_first_axis():
    tracer = traced(Between(lambda x, layer: layer(x), nn.ConvTranspose2d(8, 6, 2)).eval())
    assert {("layers.0.weight", 0), ("last.weight", 1)} <= tracer.consumed
    assert {("layers.0.weight", 1), ("first.weight", 0)} <= tracer.emitted


@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_of_other_dimensions(dims):
    conv, norm = (getattr(nn, f"{name}{dims}d") for name in ("Conv", "BatchNorm"))
    model = nn.Sequential(conv(3, 8, 3), norm(8), nn.ReLU(), conv(8, 4, 1), nn.Flatten())
    assert found_by(model, 2, 3, *[5] * dims)[0] == [8]


def test_a_kernel_of_one_place_mixes_no_places():
    # channels are the last axis of [B, N, C] here, and those of the convolution are tokens
    def mixed(x, conv):
        return conv(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8))

    assert free(mixed, nn.Conv1d(64, 64, 1)) == [8]
    model = Between(lambda x, conv: mixed(x, conv), nn.Conv1d(64, 64, 3, padding=1))
    assert stays(model) == "aten.conv1d"


def test_linear_layers_and_products():
    def on_last(x, layer):
        return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    assert free(on_last, nn.Linear(8, 6)) == [6, 8]
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 5))
    assert found_by(model)[0] == [8]


class Bare(nn.Module):
    def __init__(self, function, *shapes):
        super().__init__()
        self.first, self.function = nn.Conv2d(3, 8, 3, padding=1), function
        self.matrices = nn.ParameterList(nn.Parameter(torch.randn(shape)) for shape in shapes)

    def forward(self, images):
        return self.function(self.first(images).mean((2, 3)), *self.matrices)


def test_bare_matrices():
    assert found_by(Bare(lambda x, a, b: x @ a @ b, (8, 6), (6, 5)))[0] == [6, 8]
    assert found_by(Bare(lambda x, a, b: (b @ (a @ x.T)).T, (6, 8), (5, 6)))[0] == [6, 8]
    assert found_by(Bare(lambda x, a, c: torch.addmm(c, x, a.t()), (5, 8), (5,)))[0] == [8]
    assert found_by(Bare(lambda x, a: F.linear(x, a.t()), (8, 5)))[0] == [8]
    assert found_by(Bare(lambda x, a, g: F.linear(x * g, a), (5, 8), (8,)))[0] == [8]
    assert found_by(Bare(lambda x, a: torch.bmm(x[:, None], a.expand(2, -1, -1))[:, 0], (8, 5)))[
        0
    ] == [8]


def test_what_two_computed_tensors_are_summed_over_stays():
    assert stays(Bare(lambda x, a: (x @ x.T) @ x @ a, (8, 5))) == "aten.matmul"
