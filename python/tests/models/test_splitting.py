"""A model in two parts: the same bits, the same parameters, and the cost of the first part."""

import copy
import pickle

import pytest
import torch
import torchvision
import transformers
from hypothesis import Phase, given, settings, strategies as st
from timm.layers import SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models import (
    Adapter,
    adapter_for,
    count_macs,
    logits_of,
    prefix_macs,
    register,
    registry,
    split,
)
from agflow.models.resolution import at_image_size
from agflow.pruning.pruner import prune

BLOCKS = 3


def of_timm(kind=VisionTransformer, **overrides):
    return kind(
        **{
            "img_size": 32,
            "patch_size": 8,
            "num_classes": 10,
            "embed_dim": 32,
            "depth": BLOCKS,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            **overrides,
        }
    )


def of_torchvision(**overrides):
    return torchvision.models.VisionTransformer(
        image_size=32,
        patch_size=8,
        num_layers=BLOCKS,
        num_heads=4,
        hidden_dim=32,
        mlp_dim=64,
        num_classes=10,
        **overrides,
    )


def of_transformers(kind="ViT", suffix="", **overrides):
    config = getattr(transformers, f"{kind}Config")(
        image_size=32,
        patch_size=8,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        hidden_size=32,
        intermediate_size=64,
        num_labels=10,
        **overrides,
    )
    return getattr(transformers, f"{kind}ForImageClassification{suffix}")(config)


MAKERS = {
    "timm": of_timm,
    "timm_distilled": lambda: of_timm(VisionTransformerDistilled),
    "timm_registers": lambda: of_timm(
        mlp_layer=SwiGLUPacked,
        act_layer=nn.SiLU,
        init_values=0.1,
        reg_tokens=2,
        no_embed_class=True,
    ),
    "timm_norm_pre_and_pool": lambda: of_timm(pre_norm=True, class_token=False, global_pool="avg"),
    "timm_no_positions": lambda: of_timm(pos_embed="none", final_norm=False),
    "timm_dynamic": lambda: of_timm(dynamic_img_size=True),
    "timm_at_image_size": lambda: at_image_size(of_timm(), 16),
    "torchvision": of_torchvision,
    "torchvision_pre_logits": lambda: of_torchvision(representation_size=16),
    "transformers_vit": of_transformers,
    "transformers_vit_eager": lambda: of_transformers(attn_implementation="eager", qkv_bias=False),
    "transformers_deit": lambda: of_transformers("DeiT"),
    "transformers_deit_with_teacher": lambda: of_transformers("DeiT", "WithTeacher"),
}


def make(name):
    torch.manual_seed(0)
    model = MAKERS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture(scope="module", params=MAKERS)
def family(request):
    return make(request.param)


def photos(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def counted_macs(call, *arguments):
    """torch's own count; with gradients, as it misses torchvision's fused inference path."""
    counter = FlopCounterMode(display=False)
    with counter:
        call(*arguments)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("blocks", range(BLOCKS + 1))
def test_the_halves_give_the_bits_of_the_whole_and_the_first_costs_what_was_said(family, blocks):
    prefix, rest = split(family, blocks)
    for x in (photos(), photos(1)):
        with torch.no_grad():
            x_BTD = prefix(x)
            assert x_BTD.ndim == 3 and len(x_BTD) == len(x) and x_BTD.shape[2] == 32
            assert torch.equal(rest(x_BTD), logits_of(family(x)))
    assert (
        prefix_macs(family, blocks)
        == counted_macs(prefix, photos(1))
        == count_macs(family) - counted_macs(rest, prefix(photos(1)))
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    blocks=st.integers(0, BLOCKS),
    groups=st.sampled_from(
        [
            ("mlp", "heads"),
            ("head_dim", "heads"),
            ("embed",),
            ("block",),
            ("mlp", "heads", "head_dim", "embed", "block"),
        ]
    ),
)
@settings(
    max_examples=4, deadline=None, phases=[Phase.generate]
)  # a shrunk example would not show more
def test_cut_models_in_halves(family, plan_of, random_keep, seed, blocks, groups):
    light = prune(
        family,
        plan_of(family, random_keep(family, seed, groups)),
        compensate="none",
    )
    prefix, rest = split(light, blocks)
    with torch.no_grad():
        assert torch.equal(rest(prefix(photos())), logits_of(light(photos())))
    if (
        "head_dim" not in groups
    ):  # zeros fill up narrower queries or values for torch's fused attention, which it counts
        assert prefix_macs(light, blocks) == counted_macs(prefix, photos(1))


def test_the_halves_hold_the_models_own_parameters_each_its_part(family):
    before = list(family.state_dict())
    prefix, rest = split(family, 1)
    own = {id(parameter) for parameter in family.parameters()}
    first, second = ({id(parameter) for parameter in half.parameters()} for half in (prefix, rest))
    assert first | second == own and not first & second
    assert list(family.state_dict()) == before
    with torch.no_grad():
        for parameter in family.parameters():
            parameter.mul_(1.1)
    try:
        with torch.no_grad():
            assert torch.equal(rest(prefix(photos())), logits_of(family(photos())))
    finally:
        with torch.no_grad():
            for parameter in family.parameters():
                parameter.div_(1.1)


def test_gradients_go_through_both_halves_into_the_model(family):
    prefix, rest = split(family, 2)
    found, expected = [], []
    for call, gradients in (
        (lambda x: rest(prefix(x)), found),
        (lambda x: logits_of(family(x)), expected),
    ):
        family.zero_grad()
        call(photos()).logsumexp(1).sum().backward()
        gradients += [
            parameter.grad.clone()
            for parameter in family.parameters()
            if parameter.grad is not None
        ]
    family.zero_grad()
    assert len(found) == len(expected) > 0 and all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, expected, strict=True)
    )


def test_moving_the_model_moves_its_halves(family):
    model = copy.deepcopy(family)
    prefix, rest = split(model, 2)
    model.double()
    with torch.no_grad():
        assert torch.equal(rest(prefix(photos().double())), logits_of(model(photos().double())))


def test_halves_can_be_copied_and_pickled(family):
    halves = split(family, 1)
    with torch.no_grad():
        expected = logits_of(family(photos()))
        for prefix, rest in (copy.deepcopy(halves), pickle.loads(pickle.dumps(halves))):
            assert torch.equal(rest(prefix(photos())), expected)


def test_modes_are_those_of_the_model():
    model = of_timm(proj_drop_rate=0.5)
    prefix, rest = split(model.train(), 1)
    assert all(module.training for half in (prefix, rest) for module in half.modules())
    prefix, rest = split(model.eval(), 1)
    assert not any(module.training for half in (prefix, rest) for module in half.modules())


def test_the_first_half_of_a_model_at_another_image_size_takes_images_of_any_size():
    model = at_image_size(make("timm"), 16)
    prefix, rest = split(model, 2)
    with torch.no_grad():
        assert prefix(photos()).shape == (3, 5, 32) and torch.equal(
            rest(prefix(photos())), model(photos())
        )


def test_the_second_half_can_be_exported():
    prefix, rest = split(make("timm"), 1)
    with torch.no_grad():
        x_BTD = prefix(photos())
        program = torch.export.export(
            rest, (x_BTD,), dynamic_shapes={"x_BTD": {0: torch.export.Dim("batch")}}
        )
        assert torch.allclose(program.module()(x_BTD[:2]), rest(x_BTD[:2]), atol=1e-6)
    assert not any(
        "patch_embed" in name or name.endswith("cls_token") for name in program.state_dict
    )


@pytest.mark.parametrize("blocks", [-1, BLOCKS + 1])
def test_a_split_behind_blocks_that_are_not_there_is_refused(family, blocks):
    for function in (split, prefix_macs):
        with pytest.raises(InvalidValueError, match=f"{blocks} blocks.*0 to {BLOCKS}"):
            function(family, blocks)


class Plain(nn.Module):
    pass


class PlainAdapter(Adapter):
    family, models = "plain", "Plain"
    recognises = lambda self, model: isinstance(model, Plain)
    layers = weights = cut = input_size = macs = describe = build = lambda self, *_: None


def test_an_adapter_that_does_not_know_how_says_so(monkeypatch):
    monkeypatch.setattr(registry, "_registered", list(registry._registered))
    register(PlainAdapter())
    for function in (split, prefix_macs):
        with pytest.raises(UnsupportedModelError, match="Plain"):
            function(Plain(), 1)


def test_deit_tiny_in_halves(deit, photographs):
    images = next(iter(photographs))[0]
    for blocks in (0, 4, 12):
        prefix, rest = split(deit[0], blocks)
        with torch.no_grad():
            assert torch.equal(rest(prefix(images)), deit[0](images))
    per_block = [
        prefix_macs(deit[0], blocks + 1) - prefix_macs(deit[0], blocks) for blocks in range(12)
    ]
    assert (
        len(set(per_block)) == 1
        and adapter_for(deit[0]).macs(deit[0]) == prefix_macs(deit[0], 12) + 192 * 1000
    )
