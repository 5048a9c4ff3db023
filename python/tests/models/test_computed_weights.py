"""Layers that standardise their weights become plain ones: the same outputs, and inputs to lose."""

import pytest
import timm
import torch
import transformers
from timm.layers import Conv2dSame, ScaledStdConv2d, ScaledStdConv2dSame, StdConv2d, StdConv2dSame
from torch import nn
from torch.nn import functional as F

from agflow.models import adapter_for, load_expert, plain_weights, save_expert
from agflow.models.image_sizes import note_size
from agflow.models.tracing.rules.norms import STANDARDISED

SIZE = (3, 17, 24)


class Own(nn.Conv2d):
    """As in the code that BiT was published with."""

    def forward(self, x):
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True, correction=0)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-10)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Dynamic(nn.Conv2d):
    """Weights that follow the images."""

    def forward(self, x):
        return F.conv2d(x, self.weight * x.mean(), self.bias, self.stride, self.padding)


KINDS = {
    "standardised": StdConv2d,
    "same": StdConv2dSame,
    "scaled": ScaledStdConv2d,
    "scaled same": ScaledStdConv2dSame,
    "own": Own,
}


def network(kind, **options):
    torch.manual_seed(0)
    return nn.Sequential(
        kind(3, 8, 3, stride=2, **options),
        nn.ReLU(),
        kind(8, 12, 3, **options),
        nn.ReLU(),
        kind(12, 6, 1, bias=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_outputs_of_plain_weights(kind):
    model = network(KINDS[kind])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = plain_weights(model)
    assert {type(plain[i]) for i in (0, 2, 4)} <= {nn.Conv2d, Conv2dSame}
    for size in (SIZE, (3, 32, 31)):
        images = torch.randn(2, *size)
        torch.testing.assert_close(plain(images), model(images), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(isinstance(model[i], KINDS[kind]) for i in (0, 2, 4))
    twice = plain_weights(plain)
    assert torch.equal(twice(images), plain(images))


def test_the_cure_that_a_plan_names_gives_groups():
    model = network(StdConv2d)
    note_size(model, (3, 32, 32))
    kept = adapter_for(model).kept(model)
    assert any("agflow.models.plain_weights(model)" in one.reason for one in kept)
    assert any(one.reason == STANDARDISED for one in kept)
    plain = plain_weights(model)
    note_size(plain, (3, 32, 32))
    assert {group.name for group in adapter_for(plain).layers(plain)} == {"0", "2", "4"}


def test_layers_in_two_places_stay_one_and_flags_stay():
    model = network(StdConv2d)
    model[2].weight.requires_grad_(False)
    twice = nn.Sequential(model[0], nn.Identity(), model[0])
    plain = plain_weights(twice.train())
    assert plain[0] is plain[2] and type(plain[0]) is nn.Conv2d and plain[0].training
    assert not plain_weights(model)[2].weight.requires_grad
    assert type(plain_weights(StdConv2d(3, 8, 3))) is nn.Conv2d


def test_weights_that_follow_the_images_and_plain_ones_stay():
    model = nn.Sequential(Dynamic(3, 8, 3), Conv2dSame(8, 8, 3), nn.Conv2d(8, 8, 3))
    assert [type(layer) for layer in plain_weights(model)] == [Dynamic, Conv2dSame, nn.Conv2d]


def test_the_plain_model_of_a_library_is_saved_and_loaded(tmp_path):
    model = plain_weights(timm.create_model("nf_regnet_b0", num_classes=5)).eval()
    images = torch.randn(1, 3, 64, 64)
    note_size(model, (3, 64, 64))
    save_expert(model, tmp_path / "plain")
    assert torch.equal(load_expert(tmp_path / "plain")(images), model(images))


def test_hugging_faces_layers_become_plain_ones():
    config = transformers.BitConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_groups=8, num_labels=5
    )
    torch.manual_seed(0)
    model = transformers.BitForImageClassification(config).eval()
    plain = plain_weights(model)
    images = torch.randn(1, 3, 64, 64)
    expected = model(images).logits
    torch.testing.assert_close(plain(images).logits, expected, rtol=1e-5, atol=1e-6)
    assert not any("Standardized" in type(module).__name__ for module in plain.modules())
