"""What a model is, beside its architecture: refused by name before anything runs, or handled."""

import copy
import threading

import pytest
import torch
import torch.ao.quantization
from small_vits import images_for, made, of_timm, of_torchvision, of_transformers
from torch import nn
from torch.nn import utils
from torch.nn.utils import prune

import agflow
from agflow.errors import UnsupportedModelError
from agflow.models import (
    adapter_for,
    at_image_size,
    count_macs,
    load_expert,
    logits_of,
    only_classes,
    save_expert,
    split,
)
from agflow.models.account import examined
from agflow.models.copying import copy_of, own_methods, plain

MAKERS = {"timm": of_timm, "torchvision": of_torchvision, "transformers": of_transformers}
MLPS = {  # of the first block: its module and the last linear layer in it
    "timm": ("blocks.0.mlp", "blocks.0.mlp.fc2"),
    "torchvision": (
        "encoder.layers.encoder_layer_0.mlp",
        "encoder.layers.encoder_layer_0.mlp.3",
    ),
    "transformers": ("vit.layers.0.mlp", "vit.layers.0.mlp.fc2"),
}


@pytest.fixture(params=MAKERS)
def family(request):
    return request.param


@pytest.fixture
def model(family):
    return made(MAKERS[family])


def batches(model, count=2):
    return [(images_for(model, 8), torch.arange(8) % 10) for _ in range(count)]


def some_plan(model):
    return agflow.plan(agflow.calibrate(model, batches(model)), macs=0.7)


def wrap_forward(module, change=lambda output: output):
    inner = module.forward
    module.forward = lambda *args, **kwargs: change(inner(*args, **kwargs))


# Own forwards, hooks and compiled code


def test_a_transparent_forward_of_its_own_is_left_out_of_copies(family, model):
    """A closure would make the copy run the original's modules."""
    expected = copy.deepcopy(model)
    plan, images = some_plan(model), images_for(model)
    wrap_forward(model)
    wrap_forward(model.get_submodule(MLPS[family][0]))
    for compensate in ("ridge", "mean", "none"):
        light = agflow.prune(model, plan, batches(model), compensate=compensate)
        same = agflow.prune(expected, plan, batches(model), compensate=compensate)
        assert torch.equal(logits_of(light(images)), logits_of(same(images)))
        for parameter in light.parameters():
            parameter.data.zero_()
        assert not logits_of(light(images)).any()
    assert own_methods(model) == ["forward"], "the user's model is as it was"
    for smaller in (at_image_size(model, 16), only_classes(model, [1, 2]), copy_of(model)):
        assert not any(map(own_methods, smaller.modules()))


CHANGES = {
    "a forward of its own": lambda module: wrap_forward(module, lambda output: output * 2),
    r"a forward hook \(.*<lambda>\)": lambda module: module.register_forward_hook(
        lambda _, inputs, output: output * 2
    ),
    r"a forward pre-hook \(.*<lambda>\)": lambda module: module.register_forward_pre_hook(
        lambda _, inputs: (inputs[0] * 2,)
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_the_outputs_is_refused_by_name(family, model, what, tmp_path):
    plan, (name, _) = some_plan(model), MLPS[family]
    CHANGES[what](model.get_submodule(name))
    for step in (
        lambda: agflow.calibrate(model, batches(model)),
        lambda: agflow.prune(model, plan, batches(model)),
        lambda: agflow.prune(model, plan, compensate="none"),
        lambda: at_image_size(model, 16),
        lambda: only_classes(model, [1, 2]),
    ):
        with pytest.raises(UnsupportedModelError, match=f"{name} has {what}.* first"):
            step()


def test_methods_other_than_forward_count_too():
    model = made(of_timm)
    inner = model.forward_head
    model.forward_head = lambda *args, **kwargs: inner(*args, **kwargs) * 2
    with pytest.raises(UnsupportedModelError, match="the model has a forward_head of its own"):
        examined(model)


def test_hooks_that_only_look_stay(family, model):
    seen = []
    model.get_submodule(MLPS[family][0]).register_forward_hook(lambda *_: seen.append(1))
    light = agflow.prune(model, some_plan(model), batches(model))
    seen.clear()
    light(images_for(model))
    assert seen


def test_layers_changed_by_hand_are_named():
    model = made(of_timm)
    model.blocks[1].norm1.eps = 0.1
    with pytest.raises(UnsupportedModelError, match=r"blocks\.1\.norm1 \(LayerNorm\) computes"):
        examined(model)
    model = made(of_timm)
    model.head = nn.Linear(32, 3, bias=False)
    with pytest.raises(UnsupportedModelError, match=r"head\.bias is missing, expected .*\[3\]"):
        examined(model)
    model = made(of_timm)
    model.blocks[0].mlp.half()
    with pytest.raises(UnsupportedModelError, match=r"float16 and torch\.float32: call model\.flo"):
        examined(model)
    model = made(of_timm)
    model.patch_embed.proj.stride = (4, 4)
    with pytest.raises(UnsupportedModelError, match="does not run on images of"):
        examined(model)


def compile_in_place(part, call):
    """What Module.compile() leaves: a call that was made before our hooks were registered."""
    part._compiled_call_impl = lambda *args, **kwargs: call(*args, **kwargs)


@pytest.mark.parametrize("how", ["model", "blocks"])
def test_hooks_fire_whatever_was_compiled_before_they_were_registered(how):
    model = made(of_timm)
    expected, earlier = copy.deepcopy(model), copy.deepcopy(model)
    compile_in_place(model, earlier)
    if how == "blocks":
        model = made(of_timm)
        for block, call in zip(model.blocks, earlier.blocks, strict=True):
            compile_in_place(block, call)
    check_pruned_alike(model, expected)
    assert (model if how == "model" else model.blocks[0])._compiled_call_impl is not None


@pytest.mark.slow
@pytest.mark.parametrize("how", ["model", "blocks", "forward"])
def test_code_that_was_compiled_in_place(how):
    model = made(of_timm)
    expected = copy.deepcopy(model)
    if how == "forward":
        model.forward = torch.compile(model.forward, backend="eager")
    for part in {"model": [model], "blocks": model.blocks, "forward": []}[how]:
        part.compile(backend="eager")
    with torch.no_grad():
        model(images_for(model))
    check_pruned_alike(model, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda model: swapped("blocks.1", torch.compile),
            r"blocks\.1 is a torch.compile wrapper: put its \._orig_mod in its place",
        ),
    ],
)
def test_wrappers_of_torch_compile_are_refused_with_what_to_pass(make, words):
    with pytest.raises(UnsupportedModelError, match=words):
        count_macs(make(made(of_timm)))


def check_pruned_alike(model, expected):
    images, plan = images_for(model), some_plan(model)
    for compensate in ("ridge", "ridge_at_once", "none"):
        light = agflow.prune(model, plan, batches(model), compensate=compensate)
        same = agflow.prune(expected, plan, batches(model), compensate=compensate)
        assert torch.equal(light(images), same(images))


# Copies


class Log:
    lock = None

    def __call__(self, *_):
        self.lock = threading.Lock()


def keep_graph(model):
    model.blocks[1].attn.seen = [model(images_for(model))]


@pytest.mark.parametrize(
    "change, words",
    [
        (keep_graph, r"blocks\.1\.attn\.seen is a tensor of a graph.*detach or delete it"),
        (
            lambda model: model.blocks[0].register_forward_hook(Log()),
            r"the hook Log in blocks\.0\._forward_hooks .*lock.*remove it first",
        ),
        (lambda model: setattr(model, "lock", threading.Lock()), r"model\.lock holds .*lock"),
        (lambda model: setattr(model, "rows", (i for i in "ab")), r"model\.rows .*generator"),
        (lambda model: setattr(model, "log", open(__file__)), r"model\.log .*TextIOWrapper"),
    ],
)
def test_what_cannot_be_copied_is_named(change, words):
    model = made(of_timm)
    plan = some_plan(model)
    change(model)
    for step in (
        lambda: agflow.prune(model, plan, compensate="none"),
        lambda: at_image_size(model, 16),
        lambda: split(model, 1),
    ):
        with pytest.raises(UnsupportedModelError, match=f"cannot be copied: {words}"):
            step()


def test_what_is_set_aside_comes_back_after_an_error():
    model = made(of_timm)
    wrap_forward(model)
    own = model.forward
    with pytest.raises(ZeroDivisionError), plain(model):
        assert not own_methods(model)
        raise ZeroDivisionError
    assert model.forward is own


# Weights that are not what they seem


def weights_cases():
    return {
        "mask": (
            lambda linear: prune.l1_unstructured(linear, "weight", 0.5),
            r"weight is computed before each forward pass by a mask .*prune\.remove\(.*'weight'\)",
        ),
        "mask of the bias": (
            lambda linear: prune.random_unstructured(linear, "bias", 0.5),
            r"bias is computed .*prune\.remove\(.*'bias'\)",
        ),
        "two masks": (
            lambda linear: [prune.random_unstructured(linear, "weight", 0.2) for _ in range(2)],
            r"weight is computed .*prune\.remove\(.*'weight'\)",
        ),
        "weight norm": (utils.weight_norm, r"weight is computed .*remove_weight_norm"),
        "spectral norm": (utils.spectral_norm, r"weight is computed .*remove_spectral_norm"),
        "parametrization": (
            utils.parametrizations.weight_norm,
            r"weight is computed by a parametrization: .*remove_parametrizations",
        ),
        "a plain tensor": (
            lambda linear: (delattr(linear, "weight"), setattr(linear, "weight", torch.ones(2, 2))),
            "weight is no parameter of its layer",
        ),
    }


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", weights_cases())
def test_weights_that_are_computed_are_refused_with_the_cure(family, model, case):
    change, words = weights_cases()[case]
    name = MLPS[family][1]
    change(model.get_submodule(name))
    with pytest.raises(UnsupportedModelError, match=rf"{name}\.{words}"):
        agflow.calibrate(model, batches(model))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_and_the_cure_cures():
    model = made(of_timm)
    prune.l1_unstructured(model.blocks[0].mlp.fc2, "weight", 0.5)
    prune.remove(model.blocks[0].mlp.fc2, "weight")
    utils.weight_norm(model.blocks[0].mlp.fc1)
    utils.remove_weight_norm(model.blocks[0].mlp.fc1)
    utils.parametrizations.spectral_norm(model.head)
    utils.parametrize.remove_parametrizations(model.head, "weight")
    assert count_macs(agflow.prune(model, some_plan(model), batches(model))) < count_macs(model)


def share_memory(model):
    model.blocks[1].mlp.fc1.weight.data = model.blocks[0].mlp.fc1.weight.data[:]


def share_rows(model):
    model.head.weight = nn.Parameter(model.blocks[0].mlp.fc2.weight.data[:10, :32])


def share_buffer(model):
    for block in model.blocks:
        block.register_buffer("seen", model.cls_token.data)


@pytest.mark.parametrize(
    "change, words",
    [
        (share_memory, r"blocks\.0\.mlp\.fc1\.weight and blocks\.1\.mlp\.fc1\.weight share"),
        (share_rows, r"head\.weight and blocks\.0\.mlp\.fc2\.weight share"),
        (share_buffer, r"blocks\.0\.seen and blocks\.1\.seen share"),
    ],
)
def test_memory_under_two_names_is_refused(change, words, tmp_path):
    model = made(of_timm)
    change(model)
    for step in (
        lambda: count_macs(model),
        lambda: agflow.calibrate(model, batches(model)),
        lambda: save_expert(model, tmp_path / "expert"),
    ):
        with pytest.raises(UnsupportedModelError, match=words):
            step()


def test_views_that_do_not_overlap_are_no_shared_memory():
    model = made(of_timm)
    vector = utils.parameters_to_vector(model.parameters()).detach()
    utils.vector_to_parameters(vector, model.parameters())
    assert count_macs(agflow.prune(model, some_plan(model), batches(model))) < count_macs(model)


# Wrappers and foreign layers


class Lora(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base, self.lora_A = base, nn.Parameter(torch.zeros(2, 2))


def swapped(name, kind):
    model = made(of_timm)
    model.set_submodule(name, kind(model.get_submodule(name)))
    return model


@pytest.mark.parametrize(
    "make, words",
    [
        (
            lambda: swapped("blocks.0.attn.qkv", Lora),
            r"blocks\.0\.attn\.qkv is a layer with LoRA matrices.*merge_and_unload",
        ),
        (lambda: swapped("head", Lora), "head is a layer with LoRA matrices"),
        (
            lambda: torch.ao.quantization.quantize_dynamic(made(of_timm), {nn.Linear}),
            r"qkv is a quantised layer: pass the model in float",
        ),
        (
            lambda: swapped("blocks.0.mlp", nn.DataParallel),
            r"blocks\.0\.mlp is a wrapper of parallel training: put its \.module",
        ),
        (
            lambda: swapped("patch_embed.proj", lambda conv: nn.LazyConv2d(32, 8, 8)),
            r"patch_embed\.proj\.weight has no shape yet",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_layers_of_other_tools_are_named_with_the_cure(make, words):
    with pytest.raises(UnsupportedModelError, match=words):
        count_macs(make())


# Modes, devices, numbers


def test_models_on_the_meta_device_have_no_values():
    model = made(of_timm)
    plan = some_plan(model)
    assert count_macs(model.to("meta")) > 0
    with pytest.raises(UnsupportedModelError, match="meta device.*load the weights first"):
        agflow.prune(model, plan, compensate="none")


def test_frozen_training_and_channels_last_models_stay_what_they_are(family, model, tmp_path):
    expected, images, plan = copy.deepcopy(model), images_for(model), some_plan(model)
    model.requires_grad_(False).train().to(memory_format=torch.channels_last)
    for parameter in list(model.parameters())[:3]:
        parameter.requires_grad_(True)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    light = agflow.prune(model, plan, batches(model))
    same = agflow.prune(expected, plan, batches(model))
    assert all(module.training for module in [*light.modules(), *model.modules()])
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert not any(parameter.requires_grad for parameter in list(light.parameters())[8:])
    light.eval()
    assert torch.allclose(logits_of(light(images)), logits_of(same(images)), atol=1e-4)
    save_expert(light, tmp_path / "light")
    assert torch.equal(logits_of(load_expert(tmp_path / "light")(images)), logits_of(light(images)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_numbers_are_examined_too(family, dtype):
    assert examined(made(MAKERS[family]).to(dtype)) is adapter_for(made(MAKERS[family]))
