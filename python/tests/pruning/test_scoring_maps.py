"""Every criterion on channels of maps against its formula in float64, from plain torch hooks."""

import numpy as np
import torch
from pruning.test_scoring import REFERENCE, Raw, collect
from torch import nn
from torch.nn import functional as F

import agflow
from agflow.models import adapter_for


class Inverted(nn.Module):
    """A stem, an inverted bottleneck with a depthwise convolution, and a classifier."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6)
        self.expand, self.depthwise = nn.Conv2d(6, 8, 1), nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.project = nn.Conv2d(8, 6, 1)
        self.hidden, self.classifier = nn.Linear(6 * 16, 12), nn.Linear(12, 10)

    def forward(self, x):
        x = F.silu(self.norm(self.stem(x)))
        x = x + self.project(F.silu(self.depthwise(F.silu(self.expand(x)))))
        x = F.adaptive_avg_pool2d(x, 4).flatten(1)
        return self.classifier(torch.tanh(self.hidden(x)))


def inverted():
    torch.manual_seed(0)
    model = Inverted()
    with torch.no_grad():
        for tensor in (*model.norm.parameters(), *model.norm.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return model.eval()


def flattened(weight, axis):
    """Units first, all else behind them."""
    return weight.detach().double().movedim(axis, 0).flatten(1)


def raw(model, layer, seen, images):
    """Of a convolution's channels, by what the group's members say."""
    rows = lambda tensors: torch.cat(
        [x.detach().double().movedim(1, -1).reshape(-1, x.shape[1], 1) for x in tensors]
    )
    own = [
        (model.get_parameter(member.name), member.axis, member.role)
        for member in layer.members
        if member.role != "through"
    ]
    readers = [flattened(weight, axis).T for weight, axis, role in own if role == "consumer"]
    return Raw(
        rows(seen),
        rows([y.grad for y in seen]),
        torch.cat(readers)[..., None],
        torch.cat([flattened(weight, axis) for weight, axis, _ in own], 1),
        torch.cat([flattened(weight.grad, axis) for weight, axis, _ in own], 1),
        images,
    )


def test_criteria_of_maps_equal_their_formulas(images):
    """The depthwise convolution passes the units on: what makes and reads them is around it."""
    model = inverted()
    batches = list(zip(images[0].split(3), images[1].split(3), strict=True))
    statistics = agflow.calibrate(model, batches, groups="conv", weight_gradients=True)
    layers = [layer for layer in adapter_for(model).layers(model) if layer.kind == "conv"]
    raws = collect(model, layers, batches, raw)
    assert [(layer.units, layer.reader) for layer in layers] == [(8, "project")]
    assert statistics["rows"][0] == 8 * 16 * 16 and statistics["samples"][0] == 8
    for name, formula in REFERENCE.items():
        scores = agflow.score(statistics, name)
        for layer, r in raws.items():
            expected_U = formula(r).numpy()
            np.testing.assert_allclose(
                scores.of(layer),
                expected_U,
                rtol=1e-5,
                atol=2e-6 * np.abs(expected_U).max(),
                err_msg=f"{name} of {layer}",
            )


def test_random_scores_are_drawn_by_the_seed(images):
    statistics = agflow.calibrate(inverted(), [images], groups="conv")
    first, again, other = (agflow.score(statistics, "random", seed=seed) for seed in (1, 1, 2))
    assert first == again != other
