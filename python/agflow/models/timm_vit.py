"""timm's VisionTransformer: ViT and DeiT, class token or average pooling, LayerScale, registers, QKV bias or not.

Shape suffixes: D embedding, H hidden channels of an MLP, A attention channels (heads times head width), U kept units.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from timm.layers import Attention, LayerNorm, LayerScale, Mlp, PatchEmbed, get_act_layer
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from agflow.models.adapter import PrunableLayer, channels_of

_ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu")
_BLOCK_REASONS = {"ResPostBlock": "post-norm blocks", "ParallelScalingBlock": "parallel blocks",
                  "ParallelThingsBlock": "parallel blocks", "DiffParallelScalingBlock": "parallel blocks"}


class TimmVisionTransformer:
    """Adapter for timm's pre-norm Vision Transformers (see :class:`agflow.models.Adapter`)."""

    family = "timm_vit"

    def refusal(self, model: nn.Module) -> str | None:
        return next(_refusals(model), None)

    def layers(self, model: VisionTransformer) -> list[PrunableLayer]:
        return [layer for i, block in enumerate(model.blocks)
                for layer in (_heads(block.attn, f"blocks.{i}.attn", _tokens(model)),
                              _hidden_channels(block.mlp, f"blocks.{i}.mlp", _tokens(model)))]

    def weights(self, model: VisionTransformer, layer: PrunableLayer) -> list[tuple[torch.Tensor, int]]:
        module = model.get_submodule(layer.name)
        if layer.group == "mlp":
            return [(module.fc1.weight, 0), (module.fc2.weight, 1)]
        return [*((rows_AD, 0) for rows_AD in module.qkv.weight.chunk(3)), (module.proj.weight, 1)]

    @torch.no_grad()
    def cut(self, model: VisionTransformer, layer: PrunableLayer, keep_U: torch.Tensor) -> None:
        module = model.get_submodule(layer.name)
        if layer.group == "mlp":
            module.fc1 = _keep_outputs(module.fc1, keep_U)
            module.fc2 = _keep_inputs(module.fc2, keep_U)
            return
        keep_A = channels_of(keep_U, layer.unit_width)
        old = module.attn_dim
        module.qkv = _keep_outputs(module.qkv, torch.cat([keep_A, old + keep_A, 2 * old + keep_A]))
        module.proj = _keep_inputs(module.proj, keep_A)
        module.num_heads = len(keep_U)
        module.attn_dim = len(keep_A)

    def input_size(self, model: VisionTransformer) -> tuple[int, int, int]:
        return model.in_chans, *model.patch_embed.img_size

    def macs(self, model: VisionTransformer) -> int:
        tokens, patches = _tokens(model), model.patch_embed.num_patches
        linear = sum(block_linear.weight.numel() for block in model.blocks
                     for block_linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2))
        attention = sum(2 * tokens * block.attn.attn_dim for block in model.blocks)  # per token: q·k and a·v
        return patches * model.patch_embed.proj.weight.numel() + tokens * (linear + attention) + model.head.weight.numel()

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
            "activation": _activation_name(first.mlp.act),
            "norm_eps": first.norm1.eps,
            "heads": [block.attn.num_heads for block in model.blocks],
            "mlp": [block.mlp.fc1.out_features for block in model.blocks],
        }

    def build(self, description: dict[str, Any]) -> VisionTransformer:
        model = VisionTransformer(
            **description["arguments"], depth=len(description["heads"]), weight_init="skip",
            act_layer=get_act_layer(description["activation"]), norm_layer=partial(LayerNorm, eps=description["norm_eps"]),
        )
        for block, heads, hidden in zip(model.blocks, description["heads"], description["mlp"], strict=True):
            _set_heads(block.attn, heads)
            _set_hidden_channels(block.mlp, hidden)
        return model


def _refusals(model: nn.Module) -> Iterator[str]:
    """Every reason against ``model``, the most telling first; later ones may rely on earlier ones not holding."""
    if hasattr(model, "head_dist"):
        yield "distilled heads (two classifiers) are not supported"
    if type(model) is not VisionTransformer:
        yield "expected a timm VisionTransformer itself, not another class, a subclass or a wrapper"
    if type(model.patch_embed) is not PatchEmbed or not isinstance(model.patch_embed.norm, nn.Identity):
        yield "the patch embedding must be one convolution: hybrid and normalised embeddings are not supported"
    if model.attn_pool is not None or not model.global_pool:
        yield f"global_pool={model.global_pool!r} is not supported, expected token, avg, avgmax or max"
    if type(model.head) is not nn.Linear:
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
    if type(mlp) is not Mlp:
        yield f"an MLP of class {type(mlp).__name__} (SwiGLU?) is not supported"
    if not isinstance(mlp.norm, nn.Identity):
        yield "a norm over the hidden channels of the MLP is not supported"
    if _activation_name(mlp.act) is None:
        yield f"activation {type(mlp.act).__name__} is not supported, expected one of {', '.join(_ACTIVATIONS)}"
    if type(block.norm1) is not LayerNorm:
        yield f"a norm of class {type(block.norm1).__name__} is not supported, expected timm.layers.LayerNorm"
    for name, module in {"attn.qkv": attn.qkv, "attn.proj": attn.proj, "mlp.fc1": mlp.fc1, "mlp.fc2": mlp.fc2}.items():
        if type(module) is not nn.Linear:
            yield f"{name} is a {type(module).__name__}, expected a plain torch.nn.Linear"


def _activation_name(act: nn.Module) -> str | None:
    """timm's name of an elementwise activation; None for one that is not known to act on each channel alone."""
    if type(act) is nn.GELU:  # timm's default; its own GELU class, which "gelu" names, computes the same
        return "gelu" if act.approximate == "none" else "gelu_tanh"
    return next((name for name in _ACTIVATIONS if type(act) is get_act_layer(name)), None)


def _tokens(model: VisionTransformer) -> int:
    return model.patch_embed.num_patches + model.num_prefix_tokens


def _heads(attn: Attention, name: str, tokens: int) -> PrunableLayer:
    width, dim = attn.head_dim, attn.qkv.in_features
    macs = tokens * width * (4 * dim + 2 * tokens)
    params = width * 4 * dim + (0 if attn.qkv.bias is None else 3 * width)
    return PrunableLayer(name, "heads", attn.num_heads, width, macs, params, f"{name}.proj")


def _hidden_channels(mlp: Mlp, name: str, tokens: int) -> PrunableLayer:
    dim = mlp.fc1.in_features
    params = 2 * dim + (0 if mlp.fc1.bias is None else 1)
    return PrunableLayer(name, "mlp", mlp.fc1.out_features, 1, tokens * 2 * dim, params, f"{name}.fc2")


def _resized(linear: nn.Linear, in_features: int, out_features: int) -> nn.Linear:
    """An uninitialised Linear of another size that is like ``linear`` in everything else."""
    weight = linear.weight
    new = nn.utils.skip_init(nn.Linear, in_features, out_features, bias=linear.bias is not None,
                             device=weight.device, dtype=weight.dtype)
    new.weight.requires_grad_(weight.requires_grad)
    if linear.bias is not None:
        new.bias.requires_grad_(linear.bias.requires_grad)
    return new.train(linear.training)


def _keep_outputs(linear: nn.Linear, keep: torch.Tensor) -> nn.Linear:
    new = _resized(linear, linear.in_features, len(keep))
    new.weight.copy_(linear.weight[keep])
    if linear.bias is not None:
        new.bias.copy_(linear.bias[keep])
    return new


def _keep_inputs(linear: nn.Linear, keep: torch.Tensor) -> nn.Linear:
    new = _resized(linear, len(keep), linear.out_features)
    new.weight.copy_(linear.weight[:, keep])
    if linear.bias is not None:
        new.bias.copy_(linear.bias)
    return new


def _set_heads(attn: Attention, heads: int) -> None:
    attn.num_heads, attn.attn_dim = heads, heads * attn.head_dim
    attn.qkv = _resized(attn.qkv, attn.qkv.in_features, 3 * attn.attn_dim)
    attn.proj = _resized(attn.proj, attn.attn_dim, attn.proj.out_features)


def _set_hidden_channels(mlp: Mlp, hidden: int) -> None:
    mlp.fc1 = _resized(mlp.fc1, mlp.fc1.in_features, hidden)
    mlp.fc2 = _resized(mlp.fc2, hidden, mlp.fc2.out_features)
