"""Small networks with their groups written by hand, for tests of what works on any group."""

import torch
from torch import nn

from agflow.models.channel_group import Attribute, ChannelGroup, Member, Run, Tap


def group(name, units, members, *, kind="conv", reader="", unit_width=1, **properties):
    return ChannelGroup(
        name, kind, units, unit_width, 0, 0, reader, members=tuple(members), **properties
    )


def producer(module, *runs, axis=0):
    return Member(f"{module}.weight", axis, "producer", runs or (Run(0),))


def consumer(module, *runs, axis=1):
    return Member(f"{module}.weight", axis, "consumer", runs or (Run(0),))


def through(module, *names, runs=(Run(0),)):
    return [Member(f"{module}.{name}", 0, "through", runs) for name in names or ("bias",)]


def norm(module, runs=(Run(0),)):
    return through(module, "weight", "bias", "running_mean", "running_var", runs=runs)


class Convolutions(nn.Module):
    """An inverted bottleneck with a squeeze, then a concatenation of two branches, flattened."""

    def __init__(self):
        super().__init__()
        self.expand, self.norm = nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.project = nn.Conv2d(8, 6, 1)
        self.left, self.right = nn.Conv2d(6, 4, 1), nn.Conv2d(6, 6, 1)
        self.both = nn.GroupNorm(10, 10)
        self.flat = nn.Linear(10 * 4 * 4, 5)

    def forward(self, x):
        x = self.depthwise(self.norm(self.expand(x)).relu())
        x = x * self.excite(self.squeeze(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        x = self.project(x).relu()
        x = torch.cat([self.left(x), self.right(x)], 1)
        return self.flat(self.both(x).flatten(1))

    @staticmethod
    def groups():
        readers = [consumer("project"), consumer("squeeze")]
        expanded = [
            producer("expand"),
            *norm("norm"),
            *through("depthwise", "weight", "bias"),
            producer("excite"),
            *through("excite"),
            *readers,
        ]
        return [
            group("expand", 8, expanded, reader="project", taps=(Tap("project", axis=1),)),
            *(
                group(
                    name,
                    units,
                    [
                        producer(name),
                        *through(name),
                        *through("both", "weight", "bias", runs=(Run(first),)),
                        consumer("flat", Run(first * 16, 16)),
                    ],
                    reader="flat",
                )
                for name, units, first in (("left", 4, 0), ("right", 6, 4))
            ),
        ]


class Packed(nn.Module):
    """Attention with packed projections of heads, and a gated MLP."""

    def __init__(self):
        super().__init__()
        self.heads, self.width = 3, 4
        self.qkv, self.proj = nn.Linear(10, 36), nn.Linear(12, 10)
        self.gate_and_value, self.down = nn.Linear(10, 12), nn.Linear(6, 10)

    def forward(self, x):
        q, k, v = (
            part.unflatten(-1, (self.heads, self.width)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        y = torch.softmax(q @ k.mT / 2, -1) @ v
        x = x + self.proj(y.transpose(1, 2).flatten(2))
        gate, value = self.gate_and_value(x).chunk(2, -1)
        return x + self.down(gate.sigmoid() * value)

    @staticmethod
    def groups():
        packed, both = (Run(0, 4), Run(12, 4), Run(24, 4)), (Run(0), Run(6))
        heads = [
            producer("qkv", *packed),
            *through("qkv", runs=packed),
            consumer("proj", Run(0, 4)),
        ]
        hidden = [
            producer("gate_and_value", *both),
            *through("gate_and_value", runs=both),
            consumer("down"),
        ]
        return [
            group(
                "attention",
                3,
                heads,
                kind="heads",
                reader="proj",
                unit_width=4,
                rounds=False,
                attributes=(Attribute("", "heads"),),
            ),
            group("mlp", 6, hidden, kind="mlp", reader="down"),
        ]


def random_values(model):
    """Float64 values that hide nothing: fresh biases and statistics are zeros and ones."""
    torch.manual_seed(0)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.2, 1.0) if tensor.ndim == 1 else tensor.data.normal_()
    return model.double().eval()


NETWORKS = {
    "convolutions": (Convolutions, (2, 3, 4, 4)),
    "packed": (Packed, (2, 5, 10)),
}


def network(name):
    """A network, its groups and an input, all float64."""
    kind, shape = NETWORKS[name]
    return random_values(kind()), kind.groups(), torch.randn(shape, dtype=torch.float64)


def some_units(groups, seed=0):
    """About half of the units of each group, ascending."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (of, torch.randperm(of.units, generator=generator)[: max(1, of.units // 2)].sort().values)
        for of in groups
    ]
