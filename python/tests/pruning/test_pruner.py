"""Pruned models equal masked ones, the original stays as it is, wrong plans are refused."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch.utils.data import DataLoader

from agflow.errors import (
    DtypeError,
    EmptyError,
    InternalError,
    InvalidValueError,
    ShapeError,
    UnknownLayerError,
)
from agflow.models import adapter_for
from agflow.pruning.pruner import AGREEMENT_TOLERANCE, prune

# The fixtures are read only, so that one model serves all examples.
shared = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@torch.no_grad()
def masked_logits(model, kept, images):
    """Logits of the full-size model with the removed units set to zero by hooks."""
    handles = []
    for layer in adapter_for(model).layers(model):
        if layer.name in kept:
            mask_U = torch.zeros(layer.units)
            mask_U[torch.as_tensor(kept[layer.name])] = 1
            mask_C = mask_U.repeat_interleave(layer.unit_width)
            handles.append(
                model.get_submodule(layer.reader).register_forward_pre_hook(
                    lambda _, y, m=mask_C: (y[0] * m,)
                )
            )
    try:
        return model(images)
    finally:
        for handle in handles:
            handle.remove()


def assert_close(a, b):
    assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@given(
    seed=st.integers(0, 2**32 - 1), groups=st.sampled_from([("mlp",), ("heads",), ("mlp", "heads")])
)
@shared
def test_pruned_equals_masked(vit, images, plan_of, random_keep, seed, groups):
    kept = random_keep(vit, seed, groups)
    light = prune(vit, plan_of(vit, kept), compensate="none")
    assert_close(light(images[0]), masked_logits(vit, kept, images[0]))


@given(
    seed=st.integers(0, 2**32 - 1), groups=st.sampled_from([("mlp",), ("heads",), ("mlp", "heads")])
)
@settings(shared, max_examples=4)
def test_pruned_equals_masked_on_deit_tiny_and_photographs(
    deit, photographs, plan_of, random_keep, seed, groups
):
    model, images = deit[0], next(iter(photographs))[0]
    kept = random_keep(model, seed, groups)
    light = prune(model, plan_of(model, kept), compensate="none")
    with torch.no_grad():
        assert_close(light(images), masked_logits(model, kept, images))


@pytest.mark.parametrize("compensate", ["none", "mean", "ridge_at_once", "ridge"])
def test_original_keeps_its_bits_modes_and_flags(
    make_vit, images, plan_of, random_keep, compensate
):
    model = make_vit(drop_rate=0.1)
    model.blocks[1].train()
    model.cls_token.requires_grad_(False)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    light = prune(
        model,
        plan_of(model, random_keep(model, 0)),
        [images],
        compensate=compensate,
    )
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert light.blocks[1].mlp.fc1.training and not light.blocks[2].mlp.fc1.training
    assert not light.cls_token.requires_grad and light.blocks[0].mlp.fc1.weight.requires_grad


def test_kept_units_keep_their_weights(make_vit, plan_of):
    model = make_vit()
    light = prune(
        model, plan_of(model, {"blocks.0.mlp": [1, 5], "blocks.1.attn": [0, 3]}), compensate="none"
    )
    assert torch.equal(light.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight[[1, 5]])
    assert torch.equal(light.blocks[0].mlp.fc2.weight, model.blocks[0].mlp.fc2.weight[:, [1, 5]])
    rows = torch.cat([torch.arange(12), torch.arange(36, 48)])
    assert torch.equal(
        light.blocks[1].attn.qkv.weight,
        model.blocks[1].attn.qkv.weight[torch.cat([rows, rows + 48, rows + 96])],
    )
    assert (
        light.blocks[1].attn.num_heads,
        light.blocks[1].attn.head_dim,
        light.blocks[1].attn.attn_dim,
    ) == (2, 12, 24)


def test_a_plan_that_keeps_all_gives_an_equal_model(make_vit, plan_of, images):
    model = make_vit()
    light = prune(model, plan_of(model, {"blocks.0.mlp": range(96)}), [images])
    assert torch.equal(light(images[0]), model(images[0]))


def test_loaders_are_read_once(make_vit, plan_of, images):
    model = make_vit()
    plan = plan_of(model, {"blocks.0.mlp": range(50)})
    from_generator = prune(model, plan, (batch for batch in [images, images]))
    from_list = prune(model, plan, [images, images])
    assert torch.equal(from_generator(images[0]), from_list(images[0]))


def test_a_pruned_model_can_be_pruned_again(make_vit, plan_of, images):
    model = make_vit()
    once = prune(model, plan_of(model, {"blocks.0.attn": [1, 2, 3]}), compensate="none")
    twice = prune(once, plan_of(once, {"blocks.0.attn": [0, 2]}), compensate="none")
    assert_close(twice(images[0]), masked_logits(model, {"blocks.0.attn": [1, 3]}, images[0]))


def test_training_works_after_pruning(make_vit, plan_of, images):
    model = make_vit()
    light = prune(
        model, plan_of(model, {"blocks.0.mlp": range(8), "blocks.2.attn": [2]}), compensate="none"
    )
    light(images[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in light.parameters())


def test_refusals(make_vit, plan_of, images):
    model, other = make_vit(), make_vit(depth=4, mlp_ratio=4.0)
    half = {"blocks.0.mlp": range(48)}
    with pytest.raises(InvalidValueError, match="compensate='ridge' needs images: pass a loader"):
        prune(model, plan_of(model, half))
    with pytest.raises(
        InvalidValueError,
        match="compensate is 'magic', expected one of: ridge, ridge_at_once, mean, none",
    ):
        prune(model, plan_of(model, half), [images], compensate="magic")
    with pytest.raises(EmptyError, match="no batch"):
        prune(model, plan_of(model, half), [])
    with pytest.raises(UnknownLayerError, match="blocks.3.mlp"):
        prune(model, plan_of(other, {"blocks.3.mlp": [0]}), compensate="none")
    with pytest.raises(ShapeError, match="has 96 units, the plan was made for 192"):
        prune(model, plan_of(other, half), compensate="none")
    with pytest.raises(InvalidValueError, match='keeps no unit of layer "blocks.0.mlp"'):
        prune(model, plan_of(model, {"blocks.0.mlp": []}), compensate="none")
    with pytest.raises(DtypeError, match="float16"):
        prune(make_vit().half(), plan_of(model, half), compensate="none")


def test_a_wrongly_pruned_model_is_not_returned(make_vit, plan_of, monkeypatch):
    model = make_vit()
    adapter = adapter_for(model)
    right = type(adapter).cut
    monkeypatch.setattr(
        type(adapter),
        "cut",
        lambda self, m, layer, keep: right(self, m, layer, (keep + 1) % layer.units),
    )
    with pytest.raises(InternalError, match="differ from the masked one's"):
        prune(model, plan_of(model, {"blocks.0.mlp": np.arange(48)}), compensate="none")
    assert AGREEMENT_TOLERANCE == 1e-5


def test_a_data_loader_with_workers_gives_the_same_model(make_vit, plan_of, images):
    model = make_vit()
    plan = plan_of(model, {"blocks.0.mlp": range(50)})
    pairs = list(zip(*images, strict=True))
    plain, forked = (
        prune(model, plan, DataLoader(pairs, batch_size=4, num_workers=workers))
        for workers in (0, 2)
    )
    assert torch.equal(plain(images[0]), forked(images[0]))
