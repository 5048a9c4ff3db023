"""Every family: cuts equal masks, MACs are torch's, experts are exact, others are refused."""

import contextlib
import copy
import doctest
import json
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings, strategies as st
from small_vits import images_for, made, of_timm, of_torchvision, of_transformers
from timm.layers import GluMlp, SwiGLU, SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import agflow
import agflow.models
from agflow.calibration.hooks import capture
from agflow.calibration.loss import per_image_loss
from agflow.errors import CorruptFileError, InvalidValueError, UnsupportedModelError
from agflow.models import (
    Adapter,
    adapter_for,
    build,
    count_macs,
    count_params,
    describe,
    logits_of,
    register,
    registry,
)
from agflow.models.expert import load_expert, save_expert
from agflow.pruning.least_squares import moments
from agflow.pruning.pruner import prune
from agflow.pruning.sequential import readers_of
from agflow.training.options import Distillation

GROUPS = [("mlp",), ("heads",), ("mlp", "heads")]

FAMILIES = {
    "timm_vit": of_timm,
    "timm_distilled": lambda: of_timm(VisionTransformerDistilled),
    "timm_swiglu": lambda: of_timm(mlp_layer=SwiGLU, act_layer=nn.SiLU),
    "timm_swiglu_packed": lambda: of_timm(
        mlp_layer=SwiGLUPacked,
        act_layer=nn.SiLU,
        init_values=0.1,
        reg_tokens=2,
        no_embed_class=True,
    ),
    "timm_glu_gate_last": lambda: of_timm(mlp_layer=GluMlp, proj_bias=False),
    "torchvision": of_torchvision,
    "torchvision_pre_logits": lambda: of_torchvision(representation_size=16, num_heads=2),
    "transformers_vit": of_transformers,
    "transformers_vit_eager": lambda: of_transformers(
        attn_implementation="eager", qkv_bias=False, hidden_act="gelu_new", image_size=(32, 40)
    ),
    "transformers_deit": lambda: of_transformers("DeiT"),
    "transformers_deit_with_teacher": lambda: of_transformers("DeiT", "WithTeacher"),
}


def make(name):
    return made(FAMILIES[name])


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """One model of each family for many read-only tests."""
    return make(request.param)


def layers_of(model):
    """The layers of the two groups calibrated by default; test_groups.py has the others."""
    return [layer for layer in adapter_for(model).layers(model) if layer.kind in ("mlp", "heads")]


@torch.no_grad()
def masked_logits(model, kept, images):
    """Logits of the dense model whose hooks set the removed units' activations to zero."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(adapter_for(model).watchable(model))
        for layer in adapter_for(model).layers(model):
            if layer.name in kept:
                mask_U = torch.zeros(layer.units)
                mask_U[torch.as_tensor(kept[layer.name])] = 1
                mask_C = mask_U.repeat_interleave(layer.unit_width)
                hook = model.get_submodule(layer.reader).register_forward_pre_hook(
                    lambda _, y, m=mask_C: (y[0] * m,)
                )
                stack.callback(hook.remove)
        return logits_of(model(images))


def counted_macs(model):
    """torch's own count; with gradients, as it misses torchvision's fused inference path."""
    counter = FlopCounterMode(display=False)
    with counter:
        model(images_for(model, 1))
    return counter.get_total_flops() // 2


@given(seed=st.integers(0, 2**32 - 1), groups=st.sampled_from(GROUPS))
@settings(max_examples=6, deadline=None)
def test_cut_equals_masked_and_leaves_the_original(family, plan_of, random_keep, seed, groups):
    kept, images = random_keep(family, seed, groups), images_for(family)
    before = {name: tensor.clone() for name, tensor in family.state_dict().items()}
    with torch.no_grad():
        light_BK = logits_of(prune(family, plan_of(family, kept), compensate="none")(images))
    expected_BK = masked_logits(family, kept, images)
    assert (light_BK - expected_BK).abs().max() <= 1e-5 * expected_BK.abs().max()
    assert family.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in family.state_dict().items())


def test_masks_matter(family, random_keep):
    """Masking half of every layer changes the logits, so the oracle's hooks do fire."""
    images = images_for(family)
    kept = {layer.name: range(layer.units // 2) for layer in layers_of(family)}
    whole = masked_logits(family, {}, images)
    assert (masked_logits(family, kept, images) - whole).abs().max() > 1e-3 * whole.abs().max()


def test_macs_and_unit_costs(family, plan_of, random_keep):
    assert count_macs(family) == counted_macs(family)
    for seed, groups in enumerate(GROUPS):
        kept = random_keep(family, seed, groups)
        light = prune(family, plan_of(family, kept), compensate="none")
        assert count_macs(light) == counted_macs(light)
        gone = [
            (layer, layer.units - len(kept[layer.name]))
            for layer in adapter_for(family).layers(family)
            if layer.name in kept
        ]
        assert count_macs(family) - count_macs(light) == sum(
            units * layer.unit_macs for layer, units in gone
        )
        assert count_params(family) - count_params(light) == sum(
            units * layer.unit_params for layer, units in gone
        )


def test_weights_belong_to_the_units(family):
    adapter = adapter_for(family)
    for layer in adapter.layers(family):
        for weight, axis in adapter.weights(family, layer):
            assert weight.shape[axis] == layer.units * layer.unit_width
        if layer.reader:
            read, reader = adapter.weights(family, layer)[-1][0], family.get_submodule(layer.reader)
            assert torch.equal(read, reader.weight)
            assert read.data_ptr() == reader.weight.data_ptr(), "no memory is copied"


def test_experts_come_back_to_the_bit(family, plan_of, random_keep, tmp_path):
    images = images_for(family)
    for number, model in enumerate(
        [
            family,
            *(
                prune(family, plan_of(family, random_keep(family, 7, groups)), compensate="none")
                for groups in GROUPS
            ),
        ]
    ):
        save_expert(model, tmp_path / str(number))
        loaded = load_expert(tmp_path / str(number))
        with torch.no_grad():
            assert torch.equal(logits_of(loaded(images)), logits_of(model(images)))
        assert type(loaded) is type(model) and describe(loaded) == describe(model) == json.loads(
            json.dumps(describe(model))
        )
        assert {name: tensor.shape for name, tensor in loaded.state_dict().items()} == {
            name: tensor.shape for name, tensor in model.state_dict().items()
        }
        assert not list((tmp_path / str(number)).glob("*.bin")) and count_params(
            loaded
        ) == count_params(model)


@pytest.mark.parametrize("compensate", ["mean", "ridge"])
def test_repair_runs_and_leaves_the_original(family, plan_of, random_keep, compensate):
    images = images_for(family)
    if compensate == "mean" and family.get_submodule(layers_of(family)[0].reader).bias is None:
        pytest.skip("a mean shift needs a bias")
    state = {name: tensor.clone() for name, tensor in family.state_dict().items()}
    attributes = [sorted(vars(module)) for module in family.modules()]
    light = prune(
        family,
        plan_of(family, random_keep(family, 3)),
        [(images, None)],
        compensate=compensate,
    )
    assert logits_of(light(images)).isfinite().all()
    assert all(torch.equal(tensor, state[name]) for name, tensor in family.state_dict().items())
    assert [sorted(vars(module)) for module in family.modules()] == attributes


def test_moments_see_the_readers_inputs(family):
    """Σy and Σyyᵀ against hooks of the test's own."""
    adapter, images, seen = adapter_for(family), images_for(family), {}
    readers = readers_of(adapter.layers(family))
    found = moments(family, readers, [(images, None)])
    with adapter.watchable(family), contextlib.ExitStack() as hooks, torch.no_grad():
        for reader in readers:
            hooks.callback(
                family.get_submodule(reader)
                .register_forward_pre_hook(
                    lambda _, y, name=reader: seen.__setitem__(name, y[0].flatten(0, -2).double())
                )
                .remove
            )
        family(images)
    assert set(found) == set(readers)
    for reader, y_RC in seen.items():
        torch.testing.assert_close(found[reader].sum_C, y_RC.sum(0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[reader].sum_CC, y_RC.T @ y_RC, rtol=1e-4, atol=1e-4)


def test_capture_sees_what_plain_autograd_says(family):
    """Σ_rows y_c g_c = Σ_o W_oc ∂L/∂W_oc for the reader's weight W.

    The right side comes from the model without hooks.
    """
    model = copy.deepcopy(family)
    layers, captured = layers_of(model), {}
    images, labels = images_for(model, 2), torch.tensor([1, 7])
    before = [
        (name, sorted(vars(module)), module.training) for name, module in model.named_modules()
    ]
    with capture(
        model,
        layers,
        lambda index, count, y, g: captured.__setitem__(layers[index].name, (y * g).sum(0)),
    ):
        per_image_loss(logits_of(model(images)), labels).backward()
    assert [
        (name, sorted(vars(module)), module.training) for name, module in model.named_modules()
    ] == before
    per_image_loss(logits_of(model(images)), labels).backward()
    for layer in layers:
        weight_OC = model.get_submodule(layer.reader).weight
        torch.testing.assert_close(
            captured[layer.name], (weight_OC * weight_OC.grad).sum(0), rtol=1e-4, atol=1e-5
        )
        assert captured[layer.name].abs().max() > 1e-3


def test_the_whole_pipeline(family, plan_of, random_keep):
    """From weight gradients to a cascade with an ensemble; the heavy expert keeps its bits."""
    images, labels = images_for(family, 8), torch.arange(8)
    before = {name: tensor.clone() for name, tensor in family.state_dict().items()}
    statistics = agflow.calibrate(family, [(images, labels)], weight_gradients=True)
    scored = agflow.score(statistics, "taylor_weight").columns["score"]
    assert len(scored) == sum(layer.units for layer in layers_of(family)) and scored.max() > 0
    light = prune(family, plan_of(family, random_keep(family, 2)), [(images, labels)])
    agflow.finetune(light, [(images, labels)], epochs=1, lr=1e-5, distillation=Distillation(family))
    assert all(torch.equal(tensor, before[name]) for name, tensor in family.state_dict().items())
    assert agflow.evaluate(light, [(images, labels)]).images == 8
    with torch.no_grad():
        for threshold, expert in ((0.0, light), (1.1, family)):
            torch.testing.assert_close(
                agflow.Cascade(light, family, threshold)(images), logits_of(expert.eval()(images))
            )


def test_cutting_twice_goes_on_from_the_cut_model(family, plan_of):
    images = images_for(family)
    name, units = layers_of(family)[0].name, layers_of(family)[0].units
    once = prune(family, plan_of(family, {name: range(1, units)}), compensate="none")
    if units > 2:
        once = prune(once, plan_of(once, {name: [0, units - 2]}), compensate="none")
    expected = masked_logits(family, {name: [1, units - 1]}, images)
    with torch.no_grad():
        torch.testing.assert_close(logits_of(once(images)), expected, rtol=1e-5, atol=1e-5)


def test_a_cut_model_trains(family, plan_of, random_keep):
    light = prune(family, plan_of(family, random_keep(family, 11)), compensate="none").train()
    F.cross_entropy(logits_of(light(images_for(light))), torch.arange(4)).backward()
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for parameter in light.parameters()
    )


def test_gate_and_value_are_cut_together(plan_of):
    model = make("timm_swiglu_packed")
    light = prune(model, plan_of(model, {"blocks.0.mlp": [1, 5]}), compensate="none")
    half = model.blocks[0].mlp.fc2.in_features
    assert torch.equal(
        light.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight[[1, 5, half + 1, half + 5]]
    )
    assert torch.equal(light.blocks[0].mlp.fc2.weight, model.blocks[0].mlp.fc2.weight[:, [1, 5]])


def test_distilled_deit_averages_its_heads_and_has_a_loss():
    model = make("timm_distilled")
    model.set_distilled_training()
    logits_BK = logits_of(model(images_for(model)))
    per_image_loss(logits_BK, torch.arange(4)).backward()
    assert model.head.weight.grad.any() and model.head_dist.weight.grad.any()
    with pytest.raises(
        UnsupportedModelError,
        match="returned a tuple of 2 items, expected logits .*set_distilled_training",
    ):
        logits_of(model.train()(images_for(model)))


def test_torchvision_attention_is_only_lent_out():
    """Hooks on out_proj fire inside and never outside; the user's own forward survives."""
    model, fired = make("torchvision"), []
    images, attention = images_for(model), model.encoder.layers[0].self_attention
    attention.out_proj.register_forward_pre_hook(lambda *_: fired.append(1))
    with torch.no_grad():
        plain = model(images)
        assert not fired
        with adapter_for(model).watchable(model):
            observed = model(images)
        assert fired == [1] and "forward" not in vars(attention)
        torch.testing.assert_close(observed, plain, rtol=1e-5, atol=1e-5)
        assert torch.equal(model(images), plain) and fired == [1]
    attention.forward = own = lambda query, key, value, need_weights: (query, None)
    with pytest.raises(ZeroDivisionError), adapter_for(model).watchable(model):
        assert attention.forward is not own
        raise ZeroDivisionError
    assert attention.forward is own


def test_torchvision_dropout_works_after_a_cut(plan_of):
    torch.manual_seed(0)
    model = of_torchvision(attention_dropout=0.5)
    light = prune(
        model,
        plan_of(model, {"encoder.layers.encoder_layer_0.self_attention": [0, 2]}),
        compensate="none",
    )
    attention = light.encoder.layers[0].self_attention
    x = torch.randn(2, 5, 32)
    assert attention.training and not torch.equal(attention(x, x, x)[0], attention(x, x, x)[0])
    attention.eval()
    assert torch.equal(attention(x, x, x)[0], attention(x, x, x)[0])


def test_transformers_experts_keep_their_labels(tmp_path):
    model = of_transformers(
        num_labels=2, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1}
    ).eval()
    save_expert(model, tmp_path / "light")
    assert load_expert(tmp_path / "light").config.id2label == {0: "cat", 1: "dog"}


@pytest.mark.parametrize(
    "damage",
    [
        {"class": "PreTrainedModel"},
        {"attention": "someone/kernels"},
        {"attention": None},
        {"heads": [4]},
        {"mlp": [1, -1]},
        {"arguments": {}},
        {"labels": 3},
    ],
)
def test_damaged_transformers_descriptions_run_nothing(damage):
    with pytest.raises(CorruptFileError, match="architecture"):
        build({**describe(make("transformers_vit")), **damage})


@pytest.mark.parametrize(
    "model, reason",
    [
        (
            lambda: of_transformers(return_dict=False),
            "it returns tuples: set model.config.return_dict = True",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name_before_anything_is_touched(model, reason):
    model = model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UnsupportedModelError, match=reason):
        prune(model, None, compensate="none")
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def own_family(monkeypatch):
    """The example of agflow.models, run; what it registers is forgotten after the test."""
    monkeypatch.setattr(registry, "_registered", list(registry._registered))
    names = {}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    example = parser.get_doctest(
        agflow.models.__doc__, names, "agflow.models", agflow.models.__file__, 0
    )
    results = runner.run(example, clear_globs=False)
    assert results.attempted > 10 and not results.failed
    return example.globs


def test_a_model_of_ones_own_is_pruned_and_saved_like_any_other(
    own_family, plan_of, random_keep, tmp_path
):
    torch.manual_seed(0)
    model = own_family["TinyViT"]().eval()
    images = images_for(model)
    assert count_macs(model) == counted_macs(model)
    for seed, groups in enumerate(GROUPS):
        kept = random_keep(model, seed, groups)
        light = prune(model, plan_of(model, kept), compensate="none")
        with torch.no_grad():
            torch.testing.assert_close(
                light(images), masked_logits(model, kept, images), rtol=1e-5, atol=1e-5
            )
        assert count_macs(light) == counted_macs(light)
        save_expert(light, tmp_path / "light")
        assert torch.equal(load_expert(tmp_path / "light")(images), light(images))
    assert logits_of(prune(model, plan_of(model, kept), [(images, None)])(images)).isfinite().all()


def test_registration(own_family):
    with pytest.raises(
        InvalidValueError, match="expected an instance of a subclass of agflow.models.Adapter"
    ):
        register(own_family["TinyViTAdapter"])
    families = [adapter.family for adapter in registry.known_adapters()]
    register(own_family["TinyViTAdapter"]())
    assert [adapter.family for adapter in registry.known_adapters()] == families, (
        "the later adapter of a family replaces the earlier one"
    )
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Adapter,), {"family": "half", "models": "half"})()


def test_importing_agflow_imports_no_framework_and_looking_for_an_adapter_no_transformers():
    code = (
        "import sys, agflow; assert not {'torch', 'torchvision', 'transformers'} & "
        "sys.modules.keys(); "
        "import torch; from agflow.models import adapter_for\n"
        "try: adapter_for(torch.nn.Linear(1, 1))\n"
        "except TypeError: pass\n"
        "assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
