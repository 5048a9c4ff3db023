"""Calls of a cascade: shared prefix, pieces, smaller images, all equal to plain float64 passes."""

import copy
import inspect

import pytest
import torch
from hypothesis import given, settings, strategies as st
from timm.models.vision_transformer import VisionTransformer

import agflow
from agflow.cascade.priors import priors
from agflow.errors import EmptyError, InvalidValueError, ShapeError, UnsupportedModelError
from agflow.models import adapter_for, count_macs, prefix_macs

IMAGES = 24


def make(**how):
    torch.manual_seed(0)
    return VisionTransformer(
        **{
            "img_size": 32,
            "patch_size": 8,
            "num_classes": 10,
            "embed_dim": 48,
            "depth": 4,
            "num_heads": 4,
            **how,
        }
    ).eval()


def cut_behind(heavy, blocks):
    """A copy that lost half of the MLP channels of the blocks behind the first ones."""
    light, adapter = copy.deepcopy(heavy), adapter_for(heavy)
    for layer in adapter.layers(heavy):
        if layer.kind == "mlp" and int(layer.name.split(".")[1]) >= blocks:
            adapter.cut(light, layer, torch.arange(layer.units // 2))
    return light.eval()


@pytest.fixture(scope="module")
def heavy():
    return make().double()


@pytest.fixture(scope="module")
def light(heavy):
    return cut_behind(heavy, 2)


@pytest.fixture(scope="module")
def x():
    return torch.randn(
        IMAGES, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


@torch.no_grad()
def certainty(light, x):
    return torch.tensor(priors(light(x))[1]["max_probability"])


def between(values, below):
    """A threshold above just so many values."""
    ascending = values.double().sort().values
    edges = torch.cat([ascending[:1] - 1, (ascending[1:] + ascending[:-1]) / 2, ascending[-1:] + 1])
    return float(edges[below])


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(1, IMAGES),
    share=st.floats(0, 1),
    shared_blocks=st.integers(0, 2),
    max_batch=st.none() | st.integers(1, IMAGES),
)
def test_every_image_has_the_answer_of_its_expert(
    light, heavy, x, images, share, shared_blocks, max_batch
):
    x = x[:images]
    below = round(share * images)
    threshold = between(certainty(light, x), below)
    cascade = agflow.Cascade(
        light, heavy, threshold, shared_blocks=shared_blocks, max_batch=max_batch
    )
    logits = cascade(x)
    with torch.no_grad():
        expected = torch.where(certainty(light, x)[:, None] < threshold, heavy(x), light(x))
    torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    call = cascade.last_call
    assert (call.images, call.escalated) == (images, below)
    shared = prefix_macs(heavy, shared_blocks) if shared_blocks else 0
    assert call.charged == pytest.approx(
        (count_macs(light) + below / images * (count_macs(heavy) - shared)) / count_macs(heavy)
    )


def test_predictions_and_router_charge_what_the_cascade_does(light, heavy, x):
    held_out = [(x, torch.arange(IMAGES) % 10)]
    predictions = agflow.predict(light, heavy, held_out, shared_blocks=2)
    router = agflow.calibrate_router(predictions, escalation=0.9)
    shared = prefix_macs(heavy, 2)
    assert int(predictions.metadata["agflow.shared_cost"]) == router.ledger.shared_cost == shared
    assert agflow.Cascade(light, heavy, router, shared_blocks=2).costs.shared == shared


def watch(module, seen):
    module.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))


def test_the_prefix_runs_once_and_the_rest_on_what_escalates(heavy, x):
    heavy = copy.deepcopy(heavy)
    light = cut_behind(heavy, 2)
    cascade = agflow.Cascade(
        light, heavy, between(certainty(light, x), 7), shared_blocks=2, max_batch=10
    )
    seen = {name: [] for name in ("prefix", "light", "heavy")}
    watch(cascade._prefix, seen["prefix"])
    watch(cascade._light_rest, seen["light"])
    watch(cascade._heavy_rest, seen["heavy"])
    for model in (light, heavy):
        watch(model, seen["prefix"])  # neither runs as a whole
    cascade(x)
    assert seen == {"prefix": [10, 10, 4], "light": [10, 10, 4], "heavy": [7]}
    assert cascade.ledger.shared_cost == prefix_macs(heavy, 2) < count_macs(heavy)


def test_no_expert_sees_more_than_max_batch(heavy, x):
    light, heavy, seen = copy.deepcopy(heavy), copy.deepcopy(heavy), []
    watch(light, seen)
    watch(heavy, seen)
    cascade = agflow.Cascade(light, heavy, 1.1, max_batch=9)
    cascade(x)
    assert seen == [9, 9, 6] * 2 and cascade.last_call.escalated == IMAGES


def test_moving_and_copying_keep_the_halves_with_their_experts(heavy, light, x):
    cascade = agflow.Cascade(copy.deepcopy(light), copy.deepcopy(heavy), 1.1, shared_blocks=2)
    moved = copy.deepcopy(cascade).float()
    torch.testing.assert_close(moved(x.float()), cascade(x).float(), rtol=1e-4, atol=1e-4)
    assert (
        moved.heavy.head.weight.dtype is torch.float32
        and cascade.heavy.head.weight.dtype is torch.float64
    )
    with torch.no_grad():
        moved.heavy.head.bias.add_(1)
    torch.testing.assert_close(moved(x.float()), cascade(x).float() + 1, rtol=1e-4, atol=1e-4)
    assert all(not module.training for module in moved.eval().modules())
    assert sum(tensor.numel() for tensor in moved.parameters()) == sum(
        tensor.numel() for model in (light, heavy) for tensor in model.parameters()
    )


def test_the_light_expert_may_take_smaller_images(heavy, x):
    light = agflow.models.at_image_size(heavy, 16)
    cascade = agflow.Cascade(light, heavy, between(certainty(light, x), 5))
    logits = cascade(x)
    with torch.no_grad():
        escalates = certainty(light, x) < cascade.threshold
        torch.testing.assert_close(
            logits, torch.where(escalates[:, None], heavy(x), light(x)), rtol=1e-10, atol=1e-10
        )
    assert cascade.ledger.light_cost < 0.4 * cascade.ledger.heavy_cost
    with pytest.raises(
        InvalidValueError, match="light expert takes images of 16x16 pixels, the heavy one of 32x32"
    ):
        agflow.Cascade(light, heavy, 0.5, shared_blocks=1)


def test_experts_that_differ_share_nothing(heavy, light):
    with pytest.raises(
        InvalidValueError, match=r"first 3 blocks: blocks\.2\.mlp\.fc1\.bias is not the same"
    ):
        agflow.Cascade(light, heavy, 0.5, shared_blocks=3)
    moved = copy.deepcopy(light)
    with torch.no_grad():
        moved.pos_embed[0, 3, 7] += 1e-12
    with pytest.raises(InvalidValueError, match="pos_embed is not the same"):
        agflow.Cascade(moved, heavy, 0.5, shared_blocks=1)
    other_heads = make(num_heads=2).double()
    other_heads.load_state_dict(heavy.state_dict())
    with pytest.raises(InvalidValueError, match="with the same parameters they give other tokens"):
        agflow.Cascade(other_heads, heavy, 0.5, shared_blocks=1)
    for blocks in (-1, 5):
        with pytest.raises(InvalidValueError, match=f"behind {blocks} blocks"):
            agflow.Cascade(light, heavy, 0.5, shared_blocks=blocks)


def test_the_call_and_its_time(light, heavy, x):
    cascade = agflow.Cascade(light, heavy, 0.5)
    assert dict(inspect.getmembers(cascade)).keys() >= {"ledger", "last_call", "latency"}
    assert str(cascade.ledger) == "no image yet" and str(cascade.latency) == "no call yet"
    assert cascade.ledger.samples == cascade.last_call.images == cascade.latency.count == 0
    assert cascade.ledger.charged != cascade.ledger.charged  # NaN
    assert "no image yet" in cascade._repr_html_() and "no image yet" in repr(cascade)
    for images in (8, 3):
        cascade(x[:images])
    assert cascade.last_call.images == 3 and cascade.ledger.samples == 11
    assert cascade.latency.count == 2 and 0 < cascade.latency.p50 <= cascade.latency.p99
    cascade.reset_ledger()
    assert cascade.latency.count == 0


def test_what_no_cascade_can_take(light, heavy, x):
    cascade = agflow.Cascade(light, heavy, 1.1)
    with pytest.raises(EmptyError, match="no image"):
        cascade(x[:0])
    with pytest.raises(ShapeError, match=r"\(3, 32, 32\), expected \[B, C, H, W\]"):
        cascade(x[0])
    with pytest.raises(InvalidValueError, match="max_batch is 0"):
        agflow.Cascade(light, heavy, 0.5, max_batch=0)
    with pytest.raises(UnsupportedModelError, match="is a str, expected a module or a function"):
        agflow.Cascade("light", heavy, 0.5)
    with pytest.raises(ShapeError, match="answers for 7 classes, the light one for 10"):
        agflow.Cascade(light, make(num_classes=7).double(), 1.1)(x)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("shared_blocks", [0, 2])
def test_cuda_gives_the_answers_of_the_cpu(light, heavy, x, shared_blocks):
    cascade = agflow.Cascade(
        copy.deepcopy(light),
        copy.deepcopy(heavy),
        between(certainty(light, x), 9),
        shared_blocks=shared_blocks,
        max_batch=10,
    )
    expected = cascade(x)
    found = cascade.cuda()(x.cuda())
    assert found.is_cuda and cascade.last_call.escalated == 9
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-8, atol=1e-8)
