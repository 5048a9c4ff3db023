"""timm's VisionTransformer: ViT and DeiT, class token or average pooling, LayerScale, registers, QKV bias or not, GLUs.

Shape suffixes: D embedding, H hidden channels of an MLP, A attention channels (heads times head width), U kept units.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from timm.layers import Attention, GluMlp, LayerNorm, LayerScale, Mlp, PatchEmbed, SwiGLU, get_act_layer
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from agflow.models.adapter import Adapter, PrunableLayer, channels_of, macs_of_layers
from agflow.models.linear_units import LinearUnits

_HEADS = LinearUnits({"qkv": 3}, "proj")
_HIDDEN = {  # a gate and the value it multiplies are one unit: Y is their product
    Mlp: LinearUnits({"fc1": 1}, "fc2"),
    GluMlp: LinearUnits({"fc1": 2}, "fc2"),
    SwiGLU: LinearUnits({"fc1_g": 1, "fc1_x": 1}, "fc2"),
}
_MLP_LAYERS = {"mlp": Mlp, "glu_gate_last": partial(GluMlp, gate_last=True), "glu_gate_first": partial(GluMlp, gate_last=False), "swiglu": SwiGLU}
_ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu")
_BLOCK_REASONS = {"ResPostBlock": "post-norm blocks", "ParallelScalingBlock": "parallel blocks",
                  "ParallelThingsBlock": "parallel blocks", "DiffParallelScalingBlock": "parallel blocks"}


class TimmVisionTransformer(Adapter):
    """Adapter for timm's pre-norm Vision Transformers, distilled ones (two averaged classifiers) included."""

    family = "timm_vit"
    models = "timm's VisionTransformer and VisionTransformerDistilled"

    def recognises(self, model: nn.Module) -> bool:
        return isinstance(model, VisionTransformer)

    def refusal(self, model: VisionTransformer) -> str | None:
        return next(_refusals(model), None)

    def layers(self, model: VisionTransformer) -> list[PrunableLayer]:
        tokens = model.patch_embed.num_patches + model.num_prefix_tokens
        return [layer for i, block in enumerate(model.blocks)
                for layer in (_HEADS.layer(f"blocks.{i}.attn", "heads", block.attn, tokens=tokens, unit_width=block.attn.head_dim),
                              _HIDDEN[type(block.mlp)].layer(f"blocks.{i}.mlp", "mlp", block.mlp, tokens=tokens))]

    def weights(self, model: VisionTransformer, layer: PrunableLayer) -> list[tuple[torch.Tensor, int]]:
        module = model.get_submodule(layer.name)
        return _units(module).weights(module)

    def cut(self, model: VisionTransformer, layer: PrunableLayer, keep_U: torch.Tensor) -> None:
        module = model.get_submodule(layer.name)
        _units(module).cut(module, channels_of(keep_U, layer.unit_width))
        if layer.group == "heads":
            _count_heads(module)

    def input_size(self, model: VisionTransformer) -> tuple[int, int, int]:
        return model.in_chans, *model.patch_embed.img_size

    def macs(self, model: VisionTransformer) -> int:
        patches = model.patch_embed.num_patches * model.patch_embed.proj.weight.numel()
        return patches + macs_of_layers(self.layers(model)) + sum(head.weight.numel() for head in _classifiers(model))

    def describe(self, model: VisionTransformer) -> dict[str, Any]:
        first = model.blocks[0]
        patch = model.patch_embed
        return {
            "arguments": {
                "img_size": list(patch.img_size), "patch_size": list(patch.patch_size), "in_chans": model.in_chans,
                "num_classes": model.num_classes, "global_pool": model.global_pool, "embed_dim": model.embed_dim,
                "num_heads": model.embed_dim // first.attn.head_dim, "qkv_bias": first.attn.qkv.bias is not None,
                "qk_norm": isinstance(first.attn.q_norm, LayerNorm), "proj_bias": first.attn.proj.bias is not None,
                "init_values": 1e-5 if isinstance(first.ls1, LayerScale) else None,
                "class_token": model.has_class_token, "pos_embed": "none" if model.pos_embed is None else "learn",
                "no_embed_class": model.no_embed_class, "reg_tokens": model.num_reg_tokens,
                "pre_norm": isinstance(model.norm_pre, LayerNorm),
                "final_norm": isinstance(model.norm, LayerNorm) or isinstance(model.fc_norm, LayerNorm),
                "fc_norm": isinstance(model.fc_norm, LayerNorm), "pool_include_prefix": model.pool_include_prefix,
                "dynamic_img_size": model.dynamic_img_size, "dynamic_img_pad": patch.dynamic_img_pad,
                "drop_rate": model.head_drop.p, "pos_drop_rate": model.pos_drop.p,
                "patch_drop_rate": getattr(model.patch_drop, "prob", 0.0), "proj_drop_rate": first.attn.proj_drop.p,
                "attn_drop_rate": first.attn.attn_drop.p,
                "drop_path_rate": getattr(model.blocks[-1].drop_path1, "drop_prob", 0.0),
            },
            "distilled": isinstance(model, VisionTransformerDistilled),
            "mlp_layer": _mlp_layer_name(first.mlp),
            "activation": _activation_name(first.mlp.act),
            "norm_eps": first.norm1.eps,
            "heads": [block.attn.num_heads for block in model.blocks],
            "mlp": [block.mlp.fc2.in_features for block in model.blocks],
        }

    def build(self, description: dict[str, Any]) -> VisionTransformer:
        # Experts saved before there was a choice have neither "distilled" nor "mlp_layer".
        kind = VisionTransformerDistilled if description.get("distilled") else VisionTransformer
        model = kind(
            **description["arguments"], depth=len(description["heads"]), weight_init="skip",
            mlp_layer=_MLP_LAYERS[description.get("mlp_layer", "mlp")], act_layer=get_act_layer(description["activation"]),
            norm_layer=partial(LayerNorm, eps=description["norm_eps"]),
        )
        for block, heads, hidden in zip(model.blocks, description["heads"], description["mlp"], strict=True):
            _HEADS.resize(block.attn, heads * block.attn.head_dim)
            _count_heads(block.attn)
            _units(block.mlp).resize(block.mlp, hidden)
        return model


def _units(module: nn.Module) -> LinearUnits:
    return _HEADS if type(module) is Attention else _HIDDEN[type(module)]


def _count_heads(attn: Attention) -> None:
    attn.attn_dim = _HEADS.channels(attn)
    attn.num_heads = attn.attn_dim // attn.head_dim


def _classifiers(model: VisionTransformer) -> tuple[nn.Module, ...]:
    return (model.head, model.head_dist) if isinstance(model, VisionTransformerDistilled) else (model.head,)


def _refusals(model: VisionTransformer) -> Iterator[str]:
    """Every reason against ``model``, the most telling first; later ones may rely on earlier ones not holding."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        yield f"it is a subclass, which may compute something else; expected {TimmVisionTransformer.models} themselves"
    if type(model.patch_embed) is not PatchEmbed or not isinstance(model.patch_embed.norm, nn.Identity):
        yield "the patch embedding must be one convolution: hybrid and normalised embeddings are not supported"
    if model.attn_pool is not None or not model.global_pool:
        yield f"global_pool={model.global_pool!r} is not supported, expected token, avg, avgmax or max"
    if any(type(head) is not nn.Linear for head in _classifiers(model)):
        yield "the model has no linear classifier head (num_classes=0?), so there is no loss to take gradients of"
    if model.grad_checkpointing:
        yield "gradient checkpointing runs the forward pass twice: call model.set_grad_checkpointing(False)"
    for i, block in enumerate(model.blocks):
        for reason in _block_refusals(block):
            yield f"blocks.{i}: {reason}"


def _block_refusals(block: nn.Module) -> Iterator[str]:
    if type(block) is not Block:
        yield f"{_BLOCK_REASONS.get(type(block).__name__, type(block).__name__)} are not supported, expected pre-norm blocks"
    attn, mlp = block.attn, block.mlp
    if type(attn) is not Attention:
        yield f"attention of class {type(attn).__name__} is not supported"
    if attn.gate is not None or not isinstance(attn.norm, nn.Identity):
        yield "gated or normalised attention outputs are not supported"
    if type(mlp) not in _HIDDEN:
        yield f"an MLP of class {type(mlp).__name__} is not supported, expected {', '.join(kind.__name__ for kind in _HIDDEN)}"
    if not isinstance(mlp.norm, nn.Identity):
        yield "a norm over the hidden channels of the MLP is not supported"
    if _activation_name(mlp.act) is None:
        yield f"activation {type(mlp.act).__name__} is not supported, expected one of {', '.join(_ACTIVATIONS)}"
    if type(block.norm1) is not LayerNorm:
        yield f"a norm of class {type(block.norm1).__name__} is not supported, expected timm.layers.LayerNorm"
    for name, module in {"attn": attn, "mlp": mlp}.items():
        reason = _units(module).refusal(module)
        if reason is not None:
            yield f"{name}.{reason}"


def _mlp_layer_name(mlp: nn.Module) -> str:
    if type(mlp) is GluMlp:
        return "glu_gate_last" if mlp.gate_last else "glu_gate_first"
    return next(name for name, kind in _MLP_LAYERS.items() if type(mlp) is kind)


def _activation_name(act: nn.Module) -> str | None:
    """timm's name of an elementwise activation; None for one that is not known to act on each channel alone."""
    if type(act) is nn.GELU:  # timm's default; its own GELU class, which "gelu" names, computes the same
        return "gelu" if act.approximate == "none" else "gelu_tanh"
    return next((name for name in _ACTIVATIONS if type(act) is get_act_layer(name)), None)
