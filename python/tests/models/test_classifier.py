"""What is told from logits: features behind any activation, norm, stream or division by length."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import agflow
from agflow.errors import UnsupportedModelError
from agflow.evaluation import evaluate_agreement
from agflow.models import head_of

IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
FLAT = nn.AdaptiveAvgPool2d(1), nn.Flatten()


class Swish(torch.autograd.Function):
    """An activation of one's own, with its own gradient."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return gradient * s * (1 + x * (1 - s))


class Does(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def network(*last, width=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, width, 4, 4), nn.ReLU(), *last).eval()


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU(inplace=True),
    nn.ReLU6(),
    nn.Hardtanh(),
    nn.LeakyReLU(0.1),
    nn.PReLU(),
    nn.PReLU(6),
    nn.RReLU(),
    nn.ELU(),
    nn.CELU(0.5),
    nn.SELU(),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.SiLU(inplace=True),
    nn.Mish(),
    nn.Hardswish(),
    nn.Tanh(),
    nn.Tanhshrink(),
    nn.Hardshrink(),
    nn.Softshrink(),
    nn.Softsign(),
    nn.Threshold(0.1, 0.0),
    Does(Swish.apply),
    Does(lambda x: x * torch.tanh(F.softplus(x))),
    Does(lambda x: torch.where(x > 0, x, 0.1 * x)),
    Does(lambda x: x.clamp(min=0)),
    Does(lambda x: torch.maximum(x, torch.zeros(()))),
    Does(lambda x: x * torch.sigmoid(1.702 * x)),
    Does(lambda x: F.normalize(x, dim=1)),
]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_features_behind_an_activation_are_no_logits(activation):
    between = nn.Dropout(0.5), nn.BatchNorm1d(6), nn.LayerNorm(6)
    for tail in (
        (activation,),
        (activation, nn.Dropout(0.5)),
        (between[0], activation),
        (between[1], activation, nn.Dropout(0.2)),
        (between[2], activation),
        (activation, between[2]),
    ):
        model = network(*FLAT, nn.Linear(8, 6), *tail)
        head = head_of(model, IMAGES)
        assert not head.classes and not head.doubt, tail
        assert head_of(network(*FLAT, nn.Linear(8, 6), *tail, nn.Linear(6, 4)), IMAGES).classes == 4
        wide = network(*FLAT, nn.Linear(8, 6), *tail, nn.Linear(6, 6))
        assert head_of(wide, IMAGES).layers == (str(len(wide) - 1),)  # not those before it


class Stream(nn.Module):
    """Blocks whose branches are added to a stream; it is put out, or read by a classifier."""

    def __init__(self, head):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 4, 4), head
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, images):
        x = self.stem(images).flatten(2).transpose(1, 2)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.head(x.mean(1))


class TwoHeads(nn.Module):
    """Two classifiers whose logits are averaged, as those of a distilled DeiT."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = network(*FLAT), nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, images):
        x = self.stem(images)
        return (self.a(x) + self.b(x)) / 2


class ByCosine(nn.Module):
    """A classifier by scaled cosines, with weights of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(7, 8))

    def forward(self, x):
        return 16 * F.linear(F.normalize(x), F.normalize(self.weight))


CASES = {
    "linear": (network(*FLAT, nn.Linear(8, 6)), 6, ("4",)),
    "dropout": (network(*FLAT, nn.Linear(8, 6), nn.Dropout(0.5)), 6, ("4",)),
    "temperature": (network(*FLAT, nn.Linear(8, 6), Does(lambda x: x / 3 + 1)), 6, ("4",)),
    "softmax": (network(*FLAT, nn.Linear(8, 6), nn.Softmax(1)), 6, ("4",)),
    "softmax by hand": (
        network(*FLAT, nn.Linear(8, 6), Does(lambda x: x.exp() / x.exp().sum(1, keepdim=True))),
        6,
        ("4",),
    ),
    "log softmax": (network(*FLAT, nn.Linear(8, 6), nn.LogSoftmax(1)), 6, ("4",)),
    "map of logits": (network(nn.Conv2d(8, 6, 1), *FLAT), 6, ("2",)),
    "most of a map": (
        network(nn.Conv2d(8, 6, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten()),
        6,
        ("2",),
    ),
    "tokens": (
        network(nn.Flatten(2), Does(lambda x: x.mT), nn.Linear(8, 6), Does(lambda x: x.mean(1))),
        6,
        ("4",),
    ),
    "two heads": (TwoHeads(), 5, ("a", "b")),
    "cosines": (network(*FLAT, ByCosine()), 7, ()),
    "stream read": (Stream(nn.Linear(8, 8)), 8, ("head",)),
    "stream": (Stream(nn.Identity()), 0, ()),
    "stream, normalised": (Stream(nn.LayerNorm(8)), 0, ()),
    "normalised map": (network(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), *FLAT), 0, ()),
    "active map": (network(nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.SiLU(), *FLAT), 0, ()),
    "flat map": (network(nn.Flatten()), 0, ()),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_a_classifier(case):
    model, classes, layers = CASES[case]
    head = head_of(model, IMAGES)
    assert (head.classes, head.layers, head.doubt) == (classes, layers, "")


DOUBTFUL = {
    "sigmoid": network(*FLAT, nn.Linear(8, 6), nn.Sigmoid()),
    "softplus": network(*FLAT, nn.Linear(8, 6), nn.Softplus()),
    "native_batch_norm": network(*FLAT, nn.Linear(8, 6), nn.BatchNorm1d(6)),
    "silu": network(nn.Conv2d(8, 6, 1), nn.SiLU(), *FLAT),
    "relu": network(nn.Conv2d(8, 6, 3), nn.ReLU(), *FLAT),
}


@pytest.mark.parametrize("operator", DOUBTFUL)
def test_a_doubt_is_said_and_ended_by_the_number_of_classes(operator):
    model = DOUBTFUL[operator]
    head = head_of(model, IMAGES)
    assert head.classes == 6 and operator in head.doubt
    said = f"which may be logits or features, since .*{operator}.* set model.num_classes to 6 if"
    for refused in (
        lambda: agflow.calibrate(model, [IMAGES], groups="conv", loss="features"),
        lambda: evaluate_agreement(model, model, [IMAGES]),
        lambda: agflow.shrink(model, [IMAGES], pruning_ratio=0.3),
    ):
        with pytest.raises(UnsupportedModelError, match=said):
            refused()
    assert agflow.evaluate(model, [(IMAGES, torch.arange(6))]).images == 6  # labels say what it is
    try:
        model.num_classes = 0
        assert not head_of(model, IMAGES).classes
        model.num_classes = 6
        head = head_of(model, IMAGES)
        assert head.classes == 6 and not head.doubt
    finally:
        del model.num_classes


def test_logits_taken_for_features_are_said_by_their_number():
    model = network(*FLAT, nn.Linear(8, 6), Does(lambda x: 30 * torch.tanh(x / 30)))
    with pytest.raises(UnsupportedModelError, match="if these are logits, say so by model.num_cla"):
        agflow.evaluate(model, [(IMAGES, torch.arange(6))])
    model.num_classes = 6
    assert agflow.evaluate(model, [(IMAGES, torch.arange(6))]).classes == 6
