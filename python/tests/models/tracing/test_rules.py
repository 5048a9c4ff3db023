"""What each kind of operator does with axes, on small graphs: what is one class, what stays."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from traced_graphs import Cut, classes_of, traced

from agflow.models.tracing.axes import atoms


class Between(nn.Module):
    """A function between a convolution of 8 channels and one that reads what it makes of them."""

    def __init__(self, function, *layers, into=None):
        super().__init__()
        self.first, self.function = nn.Conv2d(3, 8, 3, padding=1), function
        self.layers = nn.ModuleList(layers).double()
        width = into or function(torch.zeros(2, 8, 8, 8, dtype=torch.float64), *layers).shape[1]
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
    assert not Cut(model, tracer, keep).differences(images)
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


def test_vectors_and_unknown_operators_are_barriers():
    assert (
        stays(Bare(lambda x, a: torch.mv(x, a)[:, None] * torch.ones(1, 5).double(), (8,)))
        == "aten.mv"
    )
    model = Between(lambda x: torch.renorm(x, 2, 0, 1.0))
    assert stays(model) == "aten.renorm"
    tracer = traced(model)
    assert tracer.unknown == {"aten.renorm": 1}
    (barrier,) = [b for b in tracer.barriers if b.operator]
    assert str(barrier) == "first: 8 channels kept, read by aten.renorm"


def test_classes_stay():
    tracer = traced(Between(lambda x: x))
    assert [str(barrier) for barrier in tracer.barriers] == ["last: 4 channels kept, the classes"]


NORMS = {
    "batch": (nn.BatchNorm2d(8), [8]),
    "batch without statistics": (nn.BatchNorm2d(8, track_running_stats=False), [8]),
    "instance": (nn.InstanceNorm2d(8, affine=True), [8]),
    "groups": (nn.GroupNorm(4, 8), [4]),  # whole groups of the norm
    "one group": (nn.GroupNorm(1, 8), []),
    "groups of one": (nn.GroupNorm(8, 8), [8]),
    "layer": (nn.LayerNorm([8, 8, 8]), []),
}


@pytest.mark.parametrize("kind", NORMS)
def test_norms(kind):
    layer, extents = NORMS[kind]
    model = Between(lambda x, norm: norm(x), layer)
    found, tracer = found_by(model)
    assert found == extents
    normed = {atom for dims in tracer.parameters.values() for dim in dims for atom in atoms(dim)}
    assert any(atom.normed for atom in normed) == (extents in ([], [4]))
    assert not [b for b in tracer.barriers if b.operator]


def test_a_norm_over_all_but_the_channels_of_the_batch_freezes_what_it_mixes():
    def over_tokens(x, norm):
        return norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (8, 8))

    norm = nn.BatchNorm1d(64, track_running_stats=False)
    assert stays(Between(over_tokens, norm)) == "aten.batch_norm"


def test_sums_with_broadcasting():
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 2, 1), nn.ReLU(), nn.Conv2d(2, 8, 1))
    assert free(lambda x, gate: x * gate(x).sigmoid(), gate) == [2, 8]
    assert free(lambda x, gate: x * gate(x).sigmoid().expand_as(x), gate) == [2, 8]
    assert free(lambda x, *_: torch.maximum(x, -x) / 2 - x.mean((2, 3), keepdim=True)) == [8]
    assert free(lambda x, one: x + one(x), nn.Conv2d(8, 1, 1)) == [8]
    assert free(lambda x, other: x + other(x), nn.Conv2d(8, 8, 1)) == [8]
    assert free(lambda x, *_: torch.where(x > 0, x, x.exp() - 1).clamp(min=-0.5)) == [8]


def test_constants_freeze_channels_unless_they_are_one_for_all():
    weights = torch.arange(8.0)[:, None, None]
    assert stays(Between(lambda x: x * weights.to(x))) == ""
    assert stays(Between(lambda x: x + torch.arange(8)[:, None, None])) == "aten.arange"
    assert free(lambda x: x * torch.full((1, 1, 1), 2.0)) == [8]
    assert free(lambda x: x + torch.zeros_like(x)) == [8]


class Buffered(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.gamma = nn.Parameter(torch.randn(8, 1, 1))
        self.register_buffer("shift", torch.randn(1, 8, 1, 1), persistent=False)

    def forward(self, images):
        return self.last(self.first(images) * self.gamma + self.shift).mean((2, 3))


def test_bare_parameters_and_buffers_are_members():
    extents, tracer = found_by(Buffered())
    assert extents == [8]
    ((_, members),) = classes_of(tracer).items()
    assert {("gamma", 0), ("shift", 1), ("last.weight", 1), ("first.bias", 0)} <= members


RESHAPES = {
    "flattened": (lambda x: x.flatten(1).unflatten(1, (8, 8, 8)), [8]),
    "with places": (lambda x: x.reshape(2, 64, 8)[:, :, :, None], [8]),
    "moved": (lambda x: x.movedim(1, -1).swapaxes(1, 2).permute(0, 3, 2, 1).mT.mT, [8]),
    "squeezed": (lambda x: x.unsqueeze(1).squeeze(1).contiguous().clone().detach(), [8]),
    "shuffled": (lambda x: F.channel_shuffle(x, 2), [2, 4]),
    "shuffled by hand": (lambda x: x.unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2), [2, 4]),
    "pixels": (lambda x: F.pixel_shuffle(x, 2), [2]),
    "pixels back": (lambda x: F.pixel_unshuffle(x, 2), [8]),
    "windows": (lambda x: F.unfold(x, 3, padding=1).unflatten(2, (8, 8)), [8]),
    "windows folded": (lambda x: F.fold(F.unfold(x, 3, padding=1), (8, 8), 3, padding=1), [8]),
    "repeated": (lambda x: x.repeat(1, 2, 1, 1), [8]),
    "repeated, by a filter each": (
        lambda x: F.conv2d(x.repeat(1, 2, 1, 1), torch.ones(16, 1, 1, 1).double(), groups=16),
        [],
    ),
    "each twice": (lambda x: x.repeat_interleave(2, 1), [8]),
    "of a gate": (lambda x: x * x.mean((1, 2, 3), keepdim=True).expand(-1, 8, -1, -1), []),
}


@pytest.mark.parametrize("kind", RESHAPES)
def test_reshapes(kind):
    function, extents = RESHAPES[kind]
    assert free(function) == extents


def test_a_reshape_across_factors_is_a_barrier():
    model = Between(lambda x: x[..., :3].reshape(2, 6, 32).reshape(2, 8, 8, 3))
    assert stays(model) == "aten.reshape"


PIECES = {
    "both halves": (lambda x: torch.cat(x.chunk(2, 1)[::-1], 1), [4, 4]),
    "unequal": (lambda x: torch.cat([*x.split([3, 5], 1)], 1), [3, 5]),
    "one goes on": (lambda x: x[:, :5], [5]),
    "overlapping": (lambda x: torch.cat([x[:, :5], x[:, 3:]], 1), [2, 3, 3]),
    "narrowed": (lambda x: x.narrow(1, -4, 3), [3]),
    "added": (lambda x: x[:, :4] + x[:, 4:], [4]),
    "every other": (lambda x: x[:, ::2] + x[:, 1::2], [4]),
    "gated": (lambda x: F.glu(x, 1), [4]),
    "chosen place": (lambda x: x.unflatten(1, (2, 4))[:, 0], [4]),
    "unbound": (lambda x: sum(x.unflatten(1, (2, 4)).unbind(1)), [4]),
    "stacked": (lambda x: torch.stack([x, x + 1], 1).amax(1), [8]),
    "stacked and flat": (lambda x: torch.stack([x, x + 1], 1).flatten(1, 2), [8]),
    "concatenated": (lambda x: torch.cat([x, x.relu(), x[:, :2]], 1), [2, 6]),
    "padded": (lambda x: F.pad(x, (1, 1, 1, 1)), [8]),
    "reflected": (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), [8]),
    "beside zeros": (lambda x: F.pad(x, (0, 0, 0, 0, 2, 3)), [8]),
    "cropped": (lambda x: F.pad(x, (0, 0, 0, 0, -2, 3)), [6]),
    "in place": (lambda x: torch.relu_(x.clone().add_(1).mul_(2)), [8]),
    "view in place": (lambda x: _scaled_view(x), [3, 5]),
    "written": (lambda x: _written(x), [4]),
}


def _scaled_view(x):
    y = x.clone()
    y[:, :3].mul_(2)
    return y


def _written(x):
    y = x.clone()
    y[:, :4] = x[:, 4:]
    return y


@pytest.mark.parametrize("kind", PIECES)
def test_pieces(kind):
    function, extents = PIECES[kind]
    assert free(function) == [n for n in extents if n > 1]


class Padded(nn.Module):
    """The shortcut of small ResNets: zeros beside the channels of the stage before."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, 2, padding=1)
        self.last = nn.Linear(8, 5)

    def forward(self, images):
        x = self.first(images)
        shortcut = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        return self.last((self.second(x) + shortcut).mean((2, 3)))


def test_a_shortcut_beside_zeros_ties_the_stages():
    extents, tracer = found_by(Padded())
    assert extents == [4]
    kept = {b.parameter: (b.channels, b.operator) for b in tracer.barriers}
    assert kept["second.weight"] == (4, "aten.pad")
    assert "first.weight" not in kept


POOLS = {
    "max": lambda x: F.max_pool2d(x, 2),
    "max with places": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "average": lambda x: F.avg_pool2d(x, 2),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 3),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 3),
    "powers": lambda x: F.lp_pool2d(x.relu(), 2.0, 2),
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "bicubic": lambda x: F.interpolate(x, size=5, mode="bicubic", antialias=True),
    "nearest": lambda x: F.interpolate(x, size=5),
    "sampled": lambda x: F.grid_sample(
        x, torch.zeros(2, 3, 3, 2, dtype=x.dtype), align_corners=False
    ),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "sum": lambda x: x.sum((2, 3))[..., None, None],
    "largest": lambda x: x.amax((-1, -2), keepdim=True) + x.max(2, keepdim=True).values,
    "norm": lambda x: x / x.norm(dim=(2, 3), keepdim=True),
    "spread": lambda x: torch.cat([x.std((2, 3)), x.var((2, 3))], 1)[..., None, None],
    "softmax of places": lambda x: x.flatten(2).softmax(-1).unflatten(2, (8, 8)),
    "flipped": lambda x: x.flip(3).roll(1, 2),
}


@pytest.mark.parametrize("kind", POOLS)
def test_what_works_on_places_leaves_channels_apart(kind):
    assert free(POOLS[kind]) == [8]


MIXED = {
    "aten.softmax": lambda x: x.softmax(1),
    "aten.log_softmax": lambda x: x.log_softmax(1),
    "aten.cumsum": lambda x: x.cumsum(1),
    "aten.sort": lambda x: x.sort(1).values,
    "aten.topk": lambda x: x.topk(4, 1).values,
    "aten.argmax": lambda x: x * x.argmax(1, keepdim=True),
    "aten.roll": lambda x: x.roll(1, 1),
    "aten.flip": lambda x: x.flip(1),
    "aten.mean": lambda x: x * x.mean(1, keepdim=True).sigmoid(),
    "aten.sum": lambda x: x / x.sum(1, keepdim=True),
    "aten.max": lambda x: x.max(1, keepdim=True).values * x,
    "aten.linalg_vector_norm": lambda x: F.normalize(x, dim=1),
    "aten.select": lambda x: x * x[:, 3][:, None],
    "aten.index": lambda x: x[:, [1, 0, 2, 3, 4, 5, 6, 7]],
    "aten.index_select": lambda x: x.index_select(1, torch.arange(8)),
    "aten.pad": lambda x: F.pad(x[None], (0, 0, 0, 0, 1, 1), mode="replicate")[0],
    "aten.avg_pool1d": lambda x: F.avg_pool1d(x.mean((2, 3)), 3, 1, 1)[..., None, None],
    "aten.conv1d": lambda x: (
        x
        * F.conv1d(x.mean((2, 3))[:, None], torch.ones(1, 1, 3).double(), padding=1)[
            :, 0, :, None, None
        ]
    ),
    "aten.tril": lambda x: x.permute(0, 2, 3, 1).tril().permute(0, 3, 1, 2),
    "aten.fft_fft": lambda x: torch.fft.fft(x, dim=1).real,
}


@pytest.mark.parametrize("operator", MIXED)
def test_what_mixes_channels_keeps_them(operator):
    assert stays(Between(MIXED[operator])).startswith(operator)


class Twice(nn.Module):
    """A convolution that is called twice, and a matrix that serves twice."""

    def __init__(self):
        super().__init__()
        self.first, self.shared = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.last, self.tied = nn.Linear(8, 5), nn.Linear(8, 5)
        self.tied.weight = self.last.weight

    def forward(self, images):
        x = self.first(images)
        x = self.shared(self.shared(x).relu()).mean((2, 3))
        return self.last(x) + self.tied(x * 2)


def test_shared_modules_and_tied_weights():
    extents, tracer = found_by(Twice())
    assert extents == [8]
    assert "tied.weight" not in tracer.parameters and tracer.reads["last.weight"] == 2


class Computed(nn.Module):
    """A convolution between others whose weights are a function of its parameters."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(6, 4, 1)
        self.weight, self.function = nn.Parameter(torch.randn(6, 8, 3, 3)), function
        self.gain = nn.Parameter(torch.rand(6, 1, 1, 1))

    def forward(self, images):
        x = self.first(images)
        return self.last(F.conv2d(x, self.function(self.weight, self.gain))).mean((2, 3))


def standardised(weight, gain):
    flat = weight.reshape(1, 6, -1)
    return F.batch_norm(flat, None, None, gain.view(-1), training=True).reshape_as(weight)


@pytest.mark.parametrize(
    ("function", "extents"),
    [
        (lambda w, _: w * 2.0, [6, 8]),
        (lambda w, g: w * g, [6, 8]),
        (lambda w, g: w.permute(0, 1, 3, 2).contiguous() * g, [6, 8]),
        (lambda w, g: w.tanh() * g, [6]),  # a weight of zero may no longer be zero
        (lambda w, _: w - w.mean((1, 2, 3), keepdim=True), [6]),
        (standardised, [6]),
        (lambda w, _: w.softmax(0), []),
        (lambda w, _: w / w.norm(), []),
    ],
)
def test_computed_weights_are_followed_along_their_filters(function, extents):
    assert found_by(Computed(function))[0] == extents


def test_parametrizations():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 4, 1), nn.Flatten())
    nn.utils.parametrizations.weight_norm(model[1])
    assert found_by(model)[0] == [6]
    nn.utils.parametrizations.spectral_norm(model[2])
    assert found_by(model)[0] == []


class Outputs(nn.Module):
    """Two convolutions, and results in a form of one's own."""

    def __init__(self, form):
        super().__init__()
        self.first, self.second, self.form = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), form
        self.last = nn.Linear(6, 5)

    def forward(self, images):
        x = self.first(images)
        y = self.second(x)
        return self.form(x, y, self.last(y.mean((2, 3))))


def test_all_results_stay():
    assert found_by(Outputs(lambda x, y, logits: {"logits": logits}))[0] == [6, 8]
    assert found_by(Outputs(lambda x, y, logits: (logits, y)))[0] == [8]
    assert found_by(Outputs(lambda x, y, logits: [x, {"maps": [y], "none": None}]))[0] == []


def test_a_unit_that_two_factors_count_stays():
    def outer(x):
        y = x.mean((2, 3))
        return (y[:, :, None] * y[:, None, :]).flatten(1)[..., None, None]

    assert found_by(Between(outer))[0] == []


def test_attention_keeps_what_it_sums_over():
    def attend(x, qkv):
        q, k, v = qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return y.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, (8, 8))

    assert free(attend, nn.Linear(8, 24)) == [2, 8]


def test_a_channel_stays_only_if_all_of_its_factors_do():
    def attend(x, qkv):
        q, k, v = qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, 2, 4)).unbind(2)
        return (q * k * v).flatten(2).transpose(1, 2).unflatten(2, (8, 8))

    _, tracer = found_by(Between(attend, nn.Linear(8, 24)))
    assert [str(b) for b in tracer.barriers] == ["last: 4 channels kept, the classes"]
