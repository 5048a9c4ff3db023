"""Weights of files: by the model's own names, behind one prefix, or refused with the cure."""

import pytest
import safetensors.torch
import torch
from small_vits import images_for, made, of_timm, of_transformers
from torch import nn

from agflow.errors import CorruptFileError
from agflow.models import logits_of
from agflow.models.weights_file import fitting_weights


@pytest.mark.parametrize("make", [of_timm, of_transformers])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "base_model.model."]
)
def test_a_prefix_of_all_names_is_taken_off(make, prefix):
    trained, torch_state = made(make), torch.random.get_rng_state()
    model = make().eval()
    raw = safetensors.torch.save(
        {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    )
    model.load_state_dict(fitting_weights(raw, model, "weights w"))
    torch.random.set_rng_state(torch_state)
    images = images_for(model)
    assert torch.equal(logits_of(model(images)), logits_of(trained(images)))


def both(state):
    return {
        f"{who}.{name}": state[name].clone() for who in ("student", "teacher") for name in state
    }


def averaged(state):
    return {"n_averaged": torch.ones(()), **{f"module.{name}": state[name] for name in state}}


def other_head(state):
    return {f"module.{name}": state[name] for name in state if "head" not in name} | {
        "module.head.weight": torch.ones(3, 32),
        "module.head.bias": torch.ones(3),
    }


def renamed(state, old, *new):
    return {
        (name.replace(old, end) if name.endswith(old) else name): tensor.clone()
        for end in new
        for name, tensor in state.items()
    }


@pytest.mark.parametrize(
    "change, words",
    [
        (both, r"behind 'student\.' and 'teacher\.': save one of the models alone"),
        (averaged, r"n_averaged is not in the model \(behind 'module\.': save the state_dict of"),
        (other_head, r"head\.bias has shape \[3\], expected \[10\]; head\.weight .*behind 'module"),
        (
            lambda state: {**state, "blocks.0.attn.qkv.lora_A.weight": torch.ones(2, 32)},
            r"the file holds LoRA matrices: merge them first",
        ),
        (
            lambda state: renamed(state, "fc2.weight", "fc2.weight_orig", "fc2.weight_mask"),
            r"fc2\.weight is missing.*the file holds masked weights: call .*prune\.remove",
        ),
        (
            lambda state: renamed(state, "fc2.weight", "fc2.weight_g", "fc2.weight_v"),
            r"the file holds a weight or spectral norm: remove it first",
        ),
        (
            lambda state: {**state, "head.weight": torch.ones(10, 32, dtype=torch.int8)},
            r"head\.weight holds torch\.int8 numbers, expected floating point",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_cure(change, words):
    model = made(of_timm)
    raw = safetensors.torch.save(change(model.state_dict()))
    with pytest.raises(
        CorruptFileError, match=f"^weights w do not fit VisionTransformer: .*{words}"
    ):
        fitting_weights(raw, model, "weights w")


def test_half_precision_is_taken_as_it_is():
    layer = nn.Linear(2, 2)
    raw = safetensors.torch.save({k: v.half() for k, v in layer.state_dict().items()})
    assert fitting_weights(raw, layer, "weights w")["weight"].dtype is torch.float16
