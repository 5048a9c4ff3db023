"""Adapters: exact MACs, unit costs that add up, rebuilding from a description, refusal by name."""

import json

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from agflow.errors import CorruptFileError, UnsupportedModelError
from agflow.models import adapter_for, build, count_macs, count_params, describe
from agflow.pruning.pruner import prune


def counted_macs(model, size):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(torch.randn(1, *size))
    return counter.get_total_flops() // 2


def test_macs_equal_torch_flop_counter_dense_and_cut(vit, plan_of, random_keep):
    assert count_macs(vit) == counted_macs(vit, (3, 32, 32))
    for seed in range(3):
        light = prune(vit, plan_of(vit, random_keep(vit, seed)), compensate="none")
        assert count_macs(light) == counted_macs(light, (3, 32, 32))


def test_macs_of_deit_tiny_equal_torch_flop_counter(deit):
    assert count_macs(deit[0]) == counted_macs(deit[0], (3, 224, 224)) == 1_253_683_200


def test_unit_costs_are_what_leaves_with_a_unit(vit, plan_of, random_keep):
    kept = random_keep(vit, 5)
    light = prune(vit, plan_of(vit, kept), compensate="none")
    layers = [layer for layer in adapter_for(vit).layers(vit) if layer.name in kept]
    assert count_macs(vit) - count_macs(light) == sum(
        (layer.units - len(kept[layer.name])) * layer.unit_macs for layer in layers
    )
    assert count_params(vit) - count_params(light) == sum(
        (layer.units - len(kept[layer.name])) * layer.unit_params for layer in layers
    )


def test_weights_run_along_the_named_axis(vit):
    adapter = adapter_for(vit)
    for layer in adapter.layers(vit):
        weights = adapter.weights(vit, layer)
        assert [weight.shape[axis] for weight, axis in weights] == [
            layer.units * layer.unit_width
        ] * len(weights)
        biases = layer.unit_params - sum(weight.numel() // layer.units for weight, _ in weights)
        assert biases >= 0, "every weight element that leaves with a unit is attached to it"


def test_description_rebuilds_dense_and_cut_models(vit, plan_of, random_keep, images):
    for model in (vit, prune(vit, plan_of(vit, random_keep(vit, 1)), compensate="none")):
        rebuilt = build(json.loads(json.dumps(describe(model)))).eval()
        rebuilt.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(rebuilt(images[0]), model(images[0]))
        assert describe(rebuilt) == describe(model)


def test_description_of_a_timm_model_with_overrides():
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=28,
        patch_size=4,
        in_chans=1,
        num_classes=10,
        embed_dim=128,
        depth=6,
        num_heads=4,
        drop_path_rate=0.1,
    ).eval()
    rebuilt = build(describe(model)).eval()
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    x = torch.randn(2, 1, 28, 28)
    assert torch.equal(rebuilt(x), model(x))
    assert adapter_for(model).input_size(model) == (1, 28, 28)
    assert [block.drop_path1.drop_prob for block in rebuilt.blocks[1:]] == pytest.approx(
        [0.02, 0.04, 0.06, 0.08, 0.1]
    )


@pytest.mark.parametrize(
    "model, reason",
    [
        (lambda: nn.ReLU(), "ReLU is not supported: it has no parameters"),
        (lambda: "resnet18", "str is not supported: expected a torch.nn.Module"),
    ],
)
def test_refusal_names_class_and_reason(model, reason):
    with pytest.raises(UnsupportedModelError, match=reason):
        adapter_for(model())


@pytest.mark.parametrize(
    "damage",
    [
        {"family": "hf_vit"},
        {"heads": [4]},
        {"mlp": "wide"},
        {"arguments": {"width": 3}},
        {"activation": "?"},
    ],
)
def test_damaged_description_is_one_clear_error(make_vit, damage):
    with pytest.raises(CorruptFileError, match="architecture"):
        build({**describe(make_vit()), **damage})
