"""Random graphs of convolutions, linears, attentions, views, sums, products, norms, layers twice:
with random units of all classes gone at once, the cut network equals the masked one everywhere."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.nn import functional as F
from traced_graphs import Cut, classes_of, traced

WIDTHS = 4, 6, 8, 12


def channels(x):
    return x.shape[1]


class Standardised(nn.Conv2d):
    """A convolution of normalised weights."""

    def forward(self, x):
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, self.weight - mean, self.bias, padding=1)


class Scaled(nn.Module):
    """A convolution whose filters have gains of their own."""

    def __init__(self, into, out):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, into, 1, 1))
        self.gain = nn.Parameter(torch.randn(out, 1, 1, 1))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.gain)


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, width, inner):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x):
        return x * self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()


class OnLast(nn.Module):
    """A layer for the last axis, applied to channels."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Scale(nn.Module):
    """A bare parameter for each channel."""

    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(width, 1, 1))

    def forward(self, x):
        return x * self.gamma


class Project(nn.Module):
    """A product with a bare matrix [in, out]."""

    def __init__(self, into, out):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(into, out))

    def forward(self, x):
        return (x.flatten(2).transpose(1, 2) @ self.matrix).transpose(1, 2).unflatten(2, (4, 4))


class Attend(nn.Module):
    """Channels attend to channels."""

    def forward(self, x):
        y = x.flatten(2).tanh()
        return ((y @ y.transpose(1, 2)).softmax(-1) @ y).view_as(x)


class Heads(nn.Module):
    """Places attend to places, in heads: in one operator or by hand, of one product or three."""

    def __init__(self, width, heads, dim, whole, fused):
        super().__init__()
        self.heads, self.dim, self.whole, self.fused = heads, dim, whole, fused
        inner = heads * dim
        names = ("qkv",) if whole else ("q", "k", "v")
        self.into = nn.ModuleDict({n: nn.Linear(width, inner * 3 // len(names)) for n in names})
        self.out = nn.Linear(inner, width)

    def forward(self, x):
        x_BTC = x.flatten(2).transpose(1, 2)
        parts = [layer(x_BTC) for layer in self.into.values()]
        q, k, v = (
            part.unflatten(2, (self.heads, self.dim)).transpose(1, 2)
            for part in (parts[0].chunk(3, 2) if self.whole else parts)
        )
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q * self.dim**-0.5 @ k.transpose(-2, -1)).softmax(-1) @ v
        y = self.out(y.transpose(1, 2).flatten(2))
        return y.transpose(1, 2).unflatten(2, (4, 4))


class LatentPool(nn.Module):
    """A query of its own attends to the places; what it found is added to each of them."""

    def __init__(self, width, heads):
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, 1, 4 * heads))
        self.heads, self.kv = heads, nn.Linear(width, 8 * heads)
        self.out = nn.Linear(4 * heads, width)

    def forward(self, x):
        kv = self.kv(x.flatten(2).transpose(1, 2)).unflatten(2, (2, self.heads, 4))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        q = self.query.expand(len(x), -1, -1).unflatten(2, (self.heads, 4)).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return x + self.out(y).transpose(1, 2)[..., None]


def shuffled(x, groups):
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


def in_place(x):
    y = x.clone()
    y[:, : channels(x) // 2].mul_(2.0)
    return y.relu_()


def padded(x, before, after):
    return F.pad(x, (0, 0, 0, 0, before, after))


def makers(x, draw):
    """What may come next for a map x: name to a module or function of it."""
    width = channels(x)
    divisor = draw(st.sampled_from([n for n in (1, 2, 3, 4, 6, 12) if width % n == 0]))
    out = divisor * draw(st.sampled_from([1, 2, 3]))
    at = draw(st.integers(1, max(1, width - 1)))
    return {
        "conv": lambda: nn.Conv2d(width, draw(st.sampled_from(WIDTHS)), 3, padding=1),
        "grouped": lambda: nn.Conv2d(width, out, 3, padding=1, groups=divisor),
        "depthwise": lambda: nn.Conv2d(width, width, 3, padding=1, groups=width),
        "transposed": lambda: nn.ConvTranspose2d(width, out, 3, padding=1, groups=divisor),
        "batch_norm": lambda: nn.BatchNorm2d(width),
        "group_norm": lambda: nn.GroupNorm(divisor, width),
        "instance_norm": lambda: nn.InstanceNorm2d(width, affine=True),
        "layer_norm": lambda: OnLast(nn.LayerNorm(width)),
        "linear": lambda: OnLast(nn.Linear(width, draw(st.sampled_from(WIDTHS)))),
        "prelu": lambda: nn.PReLU(width),
        "standardised": lambda: Standardised(width, out, 3),
        "scaled": lambda: Scaled(width, out),
        "gate": lambda: Gate(width, draw(st.sampled_from((2, 4)))),
        "scale": lambda: Scale(width),
        "project": lambda: Project(width, out),
        "attend": Attend,
        "heads": lambda: Heads(
            width, divisor, draw(st.sampled_from((2, 3))), draw(st.booleans()), draw(st.booleans())
        ),
        "latent": lambda: LatentPool(width, divisor),
        "shuffle": lambda: lambda y: shuffled(y, divisor),
        "folded": lambda: lambda y: y.unflatten(1, (divisor, -1)).sum(1),
        "chosen": lambda: (
            lambda y: (
                y.unflatten(1, (divisor, -1)) * y.unflatten(1, (divisor, -1)).softmax(1)
            ).flatten(1, 2)
        ),
        "slice": lambda: lambda y: y[:, at:] if at < channels(y) else y,
        "every_other": lambda: lambda y: y[:, ::2],
        "padded": lambda: lambda y: padded(y, at % 3, 1),
        "repeat": lambda: lambda y: y.repeat(1, 2, 1, 1),
        "roll": lambda: lambda y: y.roll(1, 1),
        "spatial_gate": lambda: lambda y: y * y.mean(1, keepdim=True).sigmoid(),
        "softmax": lambda: lambda y: y.softmax(1),
        "in_place": lambda: in_place,
        "relu": nn.ReLU,
        "pool": lambda: nn.MaxPool2d(3, 1, 1),
        "glu": lambda: lambda y: F.glu(y, 1) if channels(y) % 2 == 0 else y,
        "unknown": lambda: lambda y: y.cumsum(1),
    }


class Graph(nn.Module):
    """Steps, each of some earlier maps, of which the last is a list of branches for the head."""

    def __init__(self, draw):
        super().__init__()
        self.layers, self.steps = nn.ModuleList(), []
        self.widths = {}  # of what each layer was applied to, by its place
        maps = [torch.zeros(2, 3, 4, 4)]
        self.apply_to(maps, nn.Conv2d(3, draw(st.sampled_from(WIDTHS)), 3, padding=1), (0,))
        for _ in range(draw(st.integers(2, 8))):
            source = draw(st.integers(max(1, len(maps) - 2), len(maps) - 1))
            x = maps[source]
            alike = [i for i, y in enumerate(maps) if y.shape == x.shape and i]
            kinds = ["unary"] * 5 + ["again", "add", "mul", "cat", "cat", "split", "stack"]
            kind = draw(st.sampled_from(kinds))
            other = draw(st.sampled_from(alike))
            if kind == "unary":
                options = makers(x, draw)
                names = sorted(options) + 3 * ["conv", "grouped", "depthwise", "heads", "gate"]
                layer = options[draw(st.sampled_from(names))]()
                self.apply_to(maps, layer, (source,))
            elif kind == "again":  # a layer that ran already, on what it takes
                takes = [at for at, width in self.widths.items() if width == channels(x)]
                layer = self.layers[draw(st.sampled_from(takes))] if takes else nn.ReLU()
                self.apply_to(maps, layer, (source,))
            elif kind == "add":
                self.apply_to(maps, lambda a, b: a + b, (source, other))
            elif kind == "mul":
                self.apply_to(maps, lambda a, b: a.tanh() * b.tanh(), (source, other))
            elif kind == "stack":
                self.apply_to(maps, lambda a, b: torch.stack([a, b], 1).amax(1), (source, other))
            elif kind == "cat":
                third = draw(st.integers(1, len(maps) - 1))
                self.apply_to(maps, lambda a, b: torch.cat([a, b], 1), (source, third))
            elif channels(x) > 1:
                first = draw(st.integers(1, channels(x) - 1))
                sizes = [first, channels(x) - first]
                for part in range(2):
                    self.apply_to(maps, lambda a, s=sizes, p=part: a.split(s, 1)[p], (source,))
        self.count = draw(st.integers(1, min(3, len(maps) - 1)))
        self.spatial = draw(st.booleans())
        head = self.head_input(maps)
        self.mixer = nn.Conv2d(channels(head), 4, 1)
        self.head = nn.Linear(channels(head) * (16 if self.spatial else 1), 5)

    def apply_to(self, maps, layer, sources):
        if isinstance(layer, nn.Module):
            self.layers.append(layer)
            at = len(self.layers) - 1
            self.widths[at] = channels(maps[sources[0]])
            self.steps.append((sources, lambda *maps: self.layers[at](*maps)))
        else:
            self.steps.append((sources, layer))
        with torch.no_grad():
            result = layer(*(maps[i] for i in sources))
        maps.append(result)

    def head_input(self, maps):
        return torch.cat(maps[-self.count :], 1)

    def forward(self, images):
        maps = [images]
        for sources, step in self.steps:
            maps.append(step(*(maps[i] for i in sources)))
        x = self.head_input(maps)
        y = x.flatten(1) if self.spatial else x.mean((2, 3))
        return self.head(y) + self.mixer(x).mean((1, 2, 3))[:, None]


def check(draw):
    torch.manual_seed(0)
    model = Graph(draw).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    tracer = traced(model, 2, 3, 4, 4)
    found = classes_of(tracer)
    keep = {}
    for atom in found:
        count = draw(st.integers(1, atom.extent))
        keep[atom] = torch.randperm(atom.extent)[:count].sort().values
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    assert not Cut(model, tracer, keep).differences(images)
    return len(found)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.data())
def test_the_cut_equals_the_mask(data):
    check(data.draw)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(st.data())
def test_the_cut_equals_the_mask_on_many_graphs(data):
    check(data.draw)
