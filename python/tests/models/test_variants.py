"""Vision Transformers with a part that no family knows are traced: cuts equal masks, all is kept.

What each loses is what the trace proves of it.
"""

from functools import partial

import pytest
import torch
import torchvision
import transformers
from small_vits import made, of_timm, of_torchvision, of_transformers
from timm.layers import GatedMlp, HybridEmbed, PatchEmbed
from timm.models.vision_transformer import (
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import nn
from torch.nn import functional as F

from agflow.errors import UnsupportedModelError
from agflow.models import adapter_for, count_macs
from agflow.models.expert import load_expert, save_expert
from agflow.models.families import origins
from agflow.models.noting import note_images
from agflow.models.outputs import whole_output
from agflow.pruning.masks import masked
from agflow.pruning.pruner import prune


class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, images):
        return self.second(F.relu(self.norm(self.first(images))))


class Subclass(torchvision.models.VisionTransformer):
    pass


def replaced(model, name, part):
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, part(model.get_submodule(name)))
    return model


def two_layers(width):
    return lambda _: nn.Sequential(nn.Linear(width, 24), nn.ReLU(), nn.Linear(24, 10))


def normed(*arguments, **named):
    return PatchEmbed(*arguments, norm_layer=nn.LayerNorm, **named)


def conv_stem():
    stem = torchvision.models.vision_transformer.ConvStemConfig(8, 3, 2)
    return of_torchvision(conv_stem_configs=[stem] * 3)


def vision_model(kind, **values):
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    config = kind.config_class(**sizes, num_hidden_layers=2, image_size=32, patch_size=8, **values)
    return kind(config)


MLPS, TOWER = {"mlp"}, {"heads", "head_dim", "mlp"}
ATTENDED = TOWER | {"stage"}
VARIANTS = {
    "pooled by attention": (lambda: of_timm(global_pool="map", class_token=False), ATTENDED),
    "class token and attention": (lambda: of_timm(global_pool="map"), ATTENDED),
    "normalised embedding": (lambda: of_timm(embed_layer=normed), ATTENDED),
    "hybrid": (
        lambda: of_timm(patch_size=1, embed_layer=partial(HybridEmbed, backbone=Stem())),
        ATTENDED | {"conv"},
    ),
    "post-norm": (lambda: of_timm(block_fn=ResPostBlock), ATTENDED),
    "parallel in one product": (lambda: of_timm(block_fn=ParallelScalingBlock), MLPS),
    "parallel branches": (lambda: of_timm(block_fn=ParallelThingsBlock), ATTENDED),
    "gated MLP": (lambda: of_timm(mlp_layer=GatedMlp), ATTENDED),
    "learned activation": (lambda: of_timm(act_layer=nn.PReLU), ATTENDED),
    "root mean square norm": (lambda: of_timm(norm_layer="rmsnorm"), ATTENDED),
    "norm in the MLP": (lambda: of_timm(scale_mlp_norm=True), ATTENDED),
    "norm in the attention": (lambda: of_timm(scale_attn_norm=True), ATTENDED - {"head_dim"}),
    "unpooled": (lambda: of_timm(global_pool=""), ATTENDED),
    "two layers as head": (lambda: replaced(of_timm(), "head", two_layers(32)), ATTENDED),
    "wrapped layer": (lambda: replaced(of_timm(), "blocks.1.mlp.fc2", nn.Sequential), ATTENDED),
    "torchvision's stem": (conv_stem, {"conv", "mlp"}),
    "torchvision's subclass": (lambda: Subclass(32, 8, 2, 4, 32, 64, num_classes=10), MLPS),
    "torchvision's bare head": (
        lambda: replaced(of_torchvision(), "heads", lambda _: nn.Linear(32, 10)),
        MLPS,
    ),
    "torchvision without norms": (lambda: of_torchvision(norm_layer=nn.Identity), MLPS),
    "Hugging Face's activation": (lambda: of_transformers(hidden_act="prelu"), ATTENDED),
    "Hugging Face's two layers": (
        lambda: replaced(of_transformers(), "classifier", two_layers(32)),
        ATTENDED,
    ),
    "SigLIP": (lambda: vision_model(transformers.SiglipVisionModel), TOWER),
    "CLIP": (lambda: vision_model(transformers.CLIPVisionModel), TOWER),
}


@pytest.fixture(params=VARIANTS)
def variant(request):
    """A model, its images, and the kinds of groups that it has."""
    build, kinds = VARIANTS[request.param]
    model = made(build)
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    note_images(model, images)
    return model, images, kinds


def test_a_part_that_no_family_knows_leaves_the_model_to_the_trace(
    variant, plan_of, random_keep, tmp_path
):
    model, images, kinds = variant
    adapter = adapter_for(model)
    layers = adapter.layers(model)
    assert adapter.family == "traced" and {layer.kind for layer in layers} - {"block"} == kinds
    kept = random_keep(model, 0, kinds)
    light = prune(model, plan_of(model, kept), compensate="none")
    cuts = [(layer, torch.as_tensor(kept[layer.name])) for layer in layers if layer.name in kept]
    with torch.no_grad(), masked(adapter, model, cuts):
        expected = whole_output(model(images))
    with torch.no_grad():
        torch.testing.assert_close(whole_output(light(images)), expected, rtol=1e-4, atol=1e-5)
    assert count_macs(light) < count_macs(model)
    save_expert(light, tmp_path / "light")
    again = load_expert(tmp_path / "light")
    assert torch.equal(whole_output(again(images)), whole_output(light(images)))


def test_a_query_of_a_pool_is_cut_with_its_heads():
    model = made(lambda: of_timm(global_pool="map", class_token=False))
    groups = {group.name: group for group in adapter_for(model).layers(model)}
    assert {"attn_pool.mlp", "blocks.0.attn", "blocks.1.attn"} <= {
        name.removesuffix(".qkv").removesuffix(".fc1") for name in groups
    }


def test_models_whose_constructor_runs_their_stem_are_made_with_values():
    origin = {"library": "timm", "name": "vit_tiny_r_s16_p8_224"}
    before = torch.get_rng_state()
    dense = origins.dense_of(origin)
    assert isinstance(dense, VisionTransformer) and torch.equal(before, torch.get_rng_state())
    assert not any(parameter.is_meta for parameter in dense.parameters())


def test_layers_that_are_missing_are_named():
    model = of_timm()
    del model.blocks[1].mlp.fc2
    with pytest.raises(UnsupportedModelError, match="'Mlp' object has no attribute 'fc2'"):
        adapter_for(model).layers(model)
