"""Utilities of images equal autograd's, cost one forward pass more; a trace changes nothing."""

import copy

import numpy as np
import pytest
import torch
from small_vits import images_for, made, of_timm, of_torchvision, of_transformers
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import agflow
from agflow.errors import EmptyError, InvalidValueError, UnsupportedModelError
from agflow.models import adapter_for, count_macs, logits_of
from agflow.research.bottleneck import UtilityTrace, image_utilities, utility_macs

FAMILIES = {
    "timm": lambda: of_timm(reg_tokens=2),
    "torchvision": of_torchvision,
    "transformers": of_transformers,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_utilities_are_those_of_each_image_alone(name):
    """Against hooks of the test's own, image by image, in float64."""
    model = made(FAMILIES[name])
    images = images_for(model, 5)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    found = image_utilities(model, [(images[:3], None), (images[3:], None)])
    assert [parameter.requires_grad for parameter in model.parameters()] == flags and all(
        p.grad is None for p in model.parameters()
    )
    exact, total = copy.deepcopy(model).double(), []

    def keep(_, inputs):
        inputs[0].retain_grad()
        total.append(inputs[0])

    with adapter_for(exact).watchable(exact):
        for layer in adapter_for(exact).layers(exact):
            if layer.kind in ("mlp", "heads"):
                exact.get_submodule(layer.reader).register_forward_pre_hook(keep)
        for image, utility in zip(images.double(), found, strict=True):
            total.clear()
            logits = logits_of(exact(image[None]))
            F.cross_entropy(logits, logits.argmax(1)).backward()
            assert utility == pytest.approx(
                sum((y * y.grad).abs().sum().item() for y in total), rel=1e-4
            )


def test_the_backward_pass_is_counted():
    """A product has one gradient, of its input; attention's two have two each.

    Nothing before the first reader has any.
    """
    model, tokens, width = made(lambda: of_timm(reg_tokens=2)), 19, 32
    patches, queries_keys_values, attention = (
        16 * 192 * width,
        tokens * width * 3 * width,
        2 * tokens**2 * width,
    )
    assert (
        utility_macs(model)
        == count_macs(model) - patches - queries_keys_values - attention + attention
    )


def test_refusals():
    model = made(of_timm)
    with pytest.raises(EmptyError):
        image_utilities(model, [])
    with pytest.raises(InvalidValueError, match="of which the model has no layer"):
        image_utilities(model, [], groups=("channels",))
    with pytest.raises(UnsupportedModelError):
        image_utilities(torch.nn.Linear(2, 2), [])


@pytest.fixture
def batches():
    return [(x, torch.arange(len(x)) % 10) for x in images_for(made(of_timm), 24).split(8)]


def test_watching_a_training_leaves_its_bits(batches):
    """Dropout draws from the global generator; so does every iterator of a DataLoader."""
    test_loader = DataLoader(
        TensorDataset(images_for(made(of_timm), 6), torch.arange(6)), batch_size=4
    )
    plain, watched = (made(lambda: of_timm(proj_drop_rate=0.2)) for _ in range(2))
    trace = UtilityTrace(watched, test_loader, test_loader)
    arguments = dict(epochs=2, lr=1e-3, seed=3)
    history = agflow.finetune(plain, batches, **arguments)
    assert agflow.finetune(watched, trace.watching(batches), **arguments) == history
    assert all(
        torch.equal(a, b)
        for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    trace.record()
    assert [point.epoch for point in trace.points] == [0, 1, 2]


def test_a_point_is_what_its_parts_say(batches):
    model = made(of_timm)
    point = UtilityTrace(model, batches, batches).record()
    utilities = image_utilities(model, batches)
    assert point.images.max_over_median == pytest.approx(utilities.max() / np.median(utilities))
    statistics = agflow.calibrate(model, batches, batches=3)
    units = np.abs(agflow.score(statistics, "agf").columns["score"])
    assert point.units.overall.max_over_median == pytest.approx(units.max() / np.median(units))
    assert point.layer_median == pytest.approx(
        np.median([found.max_over_median for found in point.units.layers.values()])
    )
    assert point.accuracy == agflow.evaluate(model, batches).top1
    aurocs = {prior.prior: prior for prior in point.priors}
    right = torch.cat([model(x).argmax(1) == labels for x, labels in batches]).numpy()
    pairs = np.sign(
        -utilities[right].astype(np.float32)[:, None] + utilities[~right].astype(np.float32)[None]
    )
    assert (
        aurocs["agf"].auroc == pytest.approx((pairs.mean() + 1) / 2)
        and aurocs["agf"].errors == (~right).sum()
    )
