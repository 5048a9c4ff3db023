"""timm's VisionTransformer: ViT and DeiT in all their variants.

Class token or average pooling, LayerScale, registers, QKV bias or not, GLUs.
"""

# torch types every submodule as `Tensor | Module`; an adapter knows the classes of its family.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from timm.layers import (
    Attention,
    DropPath,
    GluMlp,
    LayerNorm,
    LayerScale,
    Mlp,
    PatchEmbed,
    SwiGLU,
    get_act_layer,
)
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from agflow.errors import UnsupportedModelError
from agflow.models.branches import Branches, Chain, chains_of
from agflow.models.linear_units import LinearUnits
from agflow.models.self_attention import SelfAttention
from agflow.models.vision_transformer import (
    Anatomy,
    Branch,
    Heads,
    VisionTransformerAdapter,
    block_refusals,
)

_CHAINS = ("norm1", "attn", "ls1", "drop_path1"), ("norm2", "mlp", "ls2", "drop_path2")
_EMBEDDINGS = "cls_token", "reg_token", "dist_token", "pos_embed"
_HEADS = LinearUnits({"qkv": 3}, "proj")
_HIDDEN = {  # a gate and the value it multiplies are one unit: Y is their product
    Mlp: LinearUnits({"fc1": 1}, "fc2"),
    GluMlp: LinearUnits({"fc1": 2}, "fc2"),
    SwiGLU: LinearUnits({"fc1_g": 1, "fc1_x": 1}, "fc2"),
}
_MLP_LAYERS = {
    "mlp": Mlp,
    "glu_gate_last": partial(GluMlp, gate_last=True),
    "glu_gate_first": partial(GluMlp, gate_last=False),
    "swiglu": SwiGLU,
}
_ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu")
_BLOCK_REASONS = {
    "ResPostBlock": "post-norm blocks",
    "ParallelScalingBlock": "parallel blocks",
    "ParallelThingsBlock": "parallel blocks",
    "DiffParallelScalingBlock": "parallel blocks",
}


class TimmVisionTransformer(VisionTransformerAdapter):
    """Adapter for timm's pre-norm Vision Transformers, of one or two averaged classifiers."""

    family = "timm_vit"
    models = "timm's VisionTransformer and VisionTransformerDistilled"

    def recognises(self, model: nn.Module) -> bool:
        return isinstance(model, VisionTransformer)

    def refusal(self, model: VisionTransformer) -> str | None:
        return next(_refusals(model), None)

    def anatomy(self, model: VisionTransformer) -> Anatomy:
        patches, tokens = (
            model.patch_embed.num_patches,
            model.patch_embed.num_patches + model.num_prefix_tokens,
        )
        of_blocks = [_branches(f"blocks.{i}", block) for i, block in enumerate(model.blocks)]
        norms = {"norm": tokens, "fc_norm": 1}
        return Anatomy(
            patches=patches,
            tokens=tokens,
            patch="patch_embed.proj",
            embeddings=tuple(
                name for name in _EMBEDDINGS if getattr(model, name, None) is not None
            ),
            positions=None if model.pos_embed is None else "pos_embed",
            attention=tuple(attention for attention, _ in of_blocks),
            mlp=tuple(mlp for _, mlp in of_blocks),
            before=(("norm_pre", tokens),) if isinstance(model.norm_pre, LayerNorm) else (),
            after=tuple(
                (name, rows)
                for name, rows in norms.items()
                if isinstance(getattr(model, name), LayerNorm)
            ),
            classifiers=("head", "head_dist")
            if isinstance(model, VisionTransformerDistilled)
            else ("head",),
        )

    def chains(self, model: VisionTransformer) -> tuple[Chain, Chain]:
        return _CHAINS

    def hidden(self, mlp: nn.Module) -> LinearUnits:
        return _HIDDEN[type(mlp)]

    def projections(self, attention: nn.Module) -> tuple[str, ...]:
        return ("qkv",)

    def own_heads(self, attention: Attention) -> Heads:
        return Heads(attention.num_heads, *[attention.head_dim] * 3)

    def count_heads(self, attention: Attention, heads: Heads) -> None:
        attention.num_heads, attention.head_dim, attention.scale = (
            heads.count,
            heads.head_dim,
            heads.head_dim**-0.5,
        )
        attention.attn_dim = heads.count * heads.head_dim
        for name in ("q_norm", "k_norm"):
            norm = getattr(attention, name)
            if isinstance(norm, LayerNorm) and norm.normalized_shape != (heads.head_dim,):
                setattr(attention, name, type(norm)(heads.head_dim, eps=norm.eps))

    def free(self, attention: Attention) -> SelfAttention:
        others = {
            name: getattr(attention, name)
            for name in ("q_norm", "k_norm")
            if self.has_norm(attention)
        }
        return SelfAttention(
            {"qkv": attention.qkv},
            {"proj": attention.proj},
            {**others, "proj_drop": attention.proj_drop},
            num_heads=attention.num_heads,
            head_dim=attention.head_dim,
            dropout=attention.attn_drop.p,
            in_tuple=False,
            training=attention.training,
        )

    def blocks(self, model: VisionTransformer) -> nn.Sequential:
        return model.blocks

    def embed(self, model: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))

    def classify(self, model: VisionTransformer, x_BTD: torch.Tensor) -> torch.Tensor:
        return model.forward_head(model.norm(x_BTD))

    def note_classes(self, model: VisionTransformer, classes: list[int]) -> None:
        model.num_classes = len(classes)

    def set_stream(self, model: VisionTransformer, channels: int) -> None:
        model.embed_dim = model.num_features = model.head_hidden_size = channels

    def input_size(self, model: VisionTransformer) -> tuple[int, int, int]:
        return model.in_chans, *model.patch_embed.img_size

    def set_image_size(self, model: VisionTransformer, height: int, width: int) -> None:
        if model.dynamic_img_size or model.patch_embed.dynamic_img_pad:
            raise UnsupportedModelError(
                "the model takes images of any size as they are (dynamic_img_size or "
                "dynamic_img_pad), so its cost has none: "
                "create it without, and load the same weights"
            )
        super().set_image_size(model, height, width)

    def note_image_size(self, model: VisionTransformer, height: int, width: int) -> None:
        model.patch_embed.set_input_size((height, width))

    def describe(self, model: VisionTransformer) -> dict[str, Any]:
        attention = next((block.attn for block in model.blocks if hasattr(block, "attn")), None)
        mlp = next((block.mlp for block in model.blocks if hasattr(block, "mlp")), None)
        readers = [
            module.get_submodule(name)
            for module, name in ((attention, "proj"), (mlp, "fc2"))
            if module is not None
        ]
        patch = model.patch_embed
        return {
            "arguments": {
                "img_size": list(patch.img_size),
                "patch_size": list(patch.patch_size),
                "in_chans": model.in_chans,
                "num_classes": model.num_classes,
                "global_pool": model.global_pool,
                "embed_dim": model.embed_dim,
                "qkv_bias": attention is not None and attention.qkv.bias is not None,
                "qk_norm": attention is not None and self.has_norm(attention),
                "proj_bias": any(reader.bias is not None for reader in readers),
                "init_values": 1e-5
                if any(isinstance(module, LayerScale) for module in model.modules())
                else None,
                "class_token": model.has_class_token,
                "pos_embed": "none" if model.pos_embed is None else "learn",
                "no_embed_class": model.no_embed_class,
                "reg_tokens": model.num_reg_tokens,
                "pre_norm": isinstance(model.norm_pre, LayerNorm),
                "final_norm": isinstance(model.norm, LayerNorm)
                or isinstance(model.fc_norm, LayerNorm),
                "fc_norm": isinstance(model.fc_norm, LayerNorm),
                "pool_include_prefix": model.pool_include_prefix,
                "dynamic_img_size": model.dynamic_img_size,
                "dynamic_img_pad": patch.dynamic_img_pad,
                "drop_rate": model.head_drop.p,
                "pos_drop_rate": model.pos_drop.p,
                "patch_drop_rate": getattr(model.patch_drop, "prob", 0.0),
                "proj_drop_rate": _projection_dropout(attention, mlp),
                "attn_drop_rate": _attention_dropout(attention),
                "drop_path_rate": _drop_path_rate(model),
            },
            "distilled": isinstance(model, VisionTransformerDistilled),
            "mlp_layer": "mlp" if mlp is None else _mlp_layer_name(mlp),
            "activation": "gelu" if mlp is None else _activation_name(mlp.act),
            "norm_eps": next(
                (module.eps for module in model.modules() if isinstance(module, LayerNorm)), 1e-6
            ),
            **self.shapes(model),
        }

    def build(self, description: dict[str, Any]) -> VisionTransformer:
        # Experts saved before there was a choice have neither "distilled" nor "mlp_layer", and
        # until cuts inside heads no "head_dim".
        arguments = dict(description["arguments"])
        heads = arguments.pop("num_heads", None)
        shapes = {
            "head_dim": heads and arguments["embed_dim"] // heads,
            "inner": [None] * len(description["heads"]),
            **description,
        }
        kind = VisionTransformerDistilled if description.get("distilled") else VisionTransformer
        model = kind(
            **arguments,
            num_heads=1,
            depth=len(description["heads"]),
            weight_init="skip",
            mlp_layer=_MLP_LAYERS[description.get("mlp_layer", "mlp")],
            act_layer=get_act_layer(description["activation"]),
            norm_layer=partial(LayerNorm, eps=description["norm_eps"]),
        )
        self.reshape(model, shapes)
        return model


def _branches(name: str, block: nn.Module) -> tuple[Branch | None, Branch | None]:
    """Attention and MLP of a block."""
    left = chains_of(block, _CHAINS)
    return tuple(
        Branch(
            name,
            chain,
            f"{name}.{chain[1]}",
            f"{name}.{chain[0]}",
            f"{name}.{chain[1]}.{reader}",
            f"{name}.{chain[2]}" if isinstance(getattr(block, chain[2]), LayerScale) else None,
        )
        if chain in left
        else None
        for chain, reader in zip(_CHAINS, ("proj", "fc2"), strict=True)
    )


def _projection_dropout(attention: nn.Module | None, mlp: nn.Module | None) -> float:
    if attention is not None:
        return attention.proj_drop.p
    return 0.0 if mlp is None else mlp.drop2.p


def _attention_dropout(attention: nn.Module | None) -> float:
    if attention is None:
        return 0.0
    return attention.dropout if type(attention) is SelfAttention else attention.attn_drop.p


def _drop_path_rate(model: VisionTransformer) -> float:
    """The rate of the last block, also where it has no branches: rates rise evenly from 0."""
    last = len(model.blocks) - 1
    i, rate = max(
        (
            (i, module.drop_prob)
            for i, block in enumerate(model.blocks)
            for module in block.modules()
            if isinstance(module, DropPath)
        ),
        default=(last, 0.0),
    )
    return rate if i == last else round(rate * last / i, 6)


def _refusals(model: VisionTransformer) -> Iterator[str]:
    """Yield every reason against ``model``; later ones rely on earlier ones not holding."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        yield (
            "it is a subclass, which may compute something else; expected "
            f"{TimmVisionTransformer.models} themselves"
        )
    if type(model.patch_embed) is not PatchEmbed or not isinstance(
        model.patch_embed.norm, nn.Identity
    ):
        yield (
            "the patch embedding must be one convolution: hybrid and normalised embeddings are not "
            "supported"
        )
    if model.attn_pool is not None or not model.global_pool:
        yield (
            f"global_pool={model.global_pool!r} is not supported, expected token, avg, avgmax or "
            "max"
        )
    classifiers = (
        (model.head, model.head_dist)
        if isinstance(model, VisionTransformerDistilled)
        else (model.head,)
    )
    if any(type(head) is not nn.Linear for head in classifiers):
        yield (
            "the model has no linear classifier head (num_classes=0?), so there is no loss to take "
            "gradients of"
        )
    if model.grad_checkpointing:
        yield (
            "gradient checkpointing runs the forward pass twice: call "
            "model.set_grad_checkpointing(False)"
        )
    for i, block in enumerate(model.blocks):
        for reason in _block_refusals(block):
            yield f"blocks.{i}: {reason}"


def _block_refusals(block: nn.Module) -> Iterator[str]:
    if type(block) not in (Block, Branches):
        yield (
            f"{_BLOCK_REASONS.get(type(block).__name__, type(block).__name__)} are not supported, "
            "expected pre-norm blocks"
        )
    yield from block_refusals(
        block, _CHAINS, LayerNorm, "timm.layers.LayerNorm", _attention_refusals, _mlp_refusals
    )


def _attention_refusals(attn: nn.Module) -> Iterator[str]:
    if type(attn) not in (Attention, SelfAttention):
        yield f"attention of class {type(attn).__name__} is not supported"
    if type(attn) is Attention and (
        attn.gate is not None or not isinstance(attn.norm, nn.Identity)
    ):
        yield "gated or normalised attention outputs are not supported"
    reason = _HEADS.refusal(attn)
    if reason is not None:
        yield f"attn.{reason}"


def _mlp_refusals(mlp: nn.Module) -> Iterator[str]:
    if type(mlp) not in _HIDDEN:
        yield (
            f"an MLP of class {type(mlp).__name__} is not supported, expected "
            f"{', '.join(kind.__name__ for kind in _HIDDEN)}"
        )
    if not isinstance(mlp.norm, nn.Identity):
        yield "a norm over the hidden channels of the MLP is not supported"
    if _activation_name(mlp.act) is None:
        yield (
            f"activation {type(mlp.act).__name__} is not supported, expected one of "
            f"{', '.join(_ACTIVATIONS)}"
        )
    reason = _HIDDEN[type(mlp)].refusal(mlp)
    if reason is not None:
        yield f"mlp.{reason}"


def _mlp_layer_name(mlp: nn.Module) -> str:
    if type(mlp) is GluMlp:
        return "glu_gate_last" if mlp.gate_last else "glu_gate_first"
    return next(name for name, kind in _MLP_LAYERS.items() if type(mlp) is kind)


def _activation_name(act: nn.Module) -> str | None:
    """timm's name of an activation; None for one that may not act on each channel alone."""
    # nn.GELU is timm's default; its own GELU class, which "gelu" names, computes the same.
    if type(act) is nn.GELU:
        return "gelu" if act.approximate == "none" else "gelu_tanh"
    return next((name for name in _ACTIVATIONS if type(act) is get_act_layer(name)), None)
