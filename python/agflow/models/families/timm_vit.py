"""timm's VisionTransformer: ViT and DeiT in all their variants.

Class token or average pooling, LayerScale, registers, QKV bias or not, GLUs.
"""

# torch types every submodule as `Tensor | Module`; an adapter knows the classes of its family.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

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
    SwiGLU,
    get_act_layer,
)
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from agflow.errors import UnsupportedModelError
from agflow.models.branches import Chain, chains_of
from agflow.models.families.timm_config import (
    change_config,
    names_of,
    plain_config,
    restored_config,
    set_config,
)
from agflow.models.families.timm_parts import (
    CHAINS,
    HIDDEN,
    MODELS,
    activation_name,
    classifiers_of,
    is_known,
)
from agflow.models.linear_units import LinearUnits
from agflow.models.self_attention import SelfAttention
from agflow.models.vision_transformer import VisionTransformerAdapter
from agflow.models.vit_family import Anatomy, Branch, Heads

_EMBEDDINGS = "cls_token", "reg_token", "dist_token", "pos_embed"
_MLP_LAYERS = {
    "mlp": Mlp,
    "glu_gate_last": partial(GluMlp, gate_last=True),
    "glu_gate_first": partial(GluMlp, gate_last=False),
    "swiglu": SwiGLU,
}


class TimmVisionTransformer(VisionTransformerAdapter):
    """Adapter for timm's pre-norm Vision Transformers, of one or two averaged classifiers."""

    family = "timm_vit"
    models = MODELS
    counts_stream = "embed_dim", "num_features", "head_hidden_size"

    def recognises(self, model: nn.Module) -> bool:
        return is_known(model)

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
            classifiers=classifiers_of(model),
        )

    def chains(self, model: VisionTransformer) -> tuple[Chain, Chain]:
        return CHAINS

    def hidden(self, mlp: nn.Module) -> LinearUnits:
        return HIDDEN[type(mlp)]

    def projections(self, attention: nn.Module) -> tuple[str, ...]:
        return ("qkv",)

    def own_heads(self, attention: Attention) -> Heads:
        return Heads(attention.num_heads, *[attention.head_dim] * 3)

    def counts_heads(self, attention: Attention) -> tuple[str, ...]:
        return "num_heads", "attn_dim"

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

    def note_classes(self, model: VisionTransformer, count: int) -> None:
        model.num_classes = count
        change_config(model, num_classes=count, label_names=None, label_descriptions=None)

    def class_names(self, model: VisionTransformer) -> list[str] | None:
        return super().class_names(model) or names_of(model)

    def input_size(self, model: VisionTransformer) -> tuple[int, int, int]:
        return model.patch_embed.proj.in_channels, *model.patch_embed.img_size

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
        size = (model.patch_embed.proj.in_channels, height, width)
        change_config(model, input_size=size, test_input_size=size)

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
                "in_chans": patch.proj.in_channels,
                "num_classes": self.class_count(model),
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
            "activation": "gelu" if mlp is None else activation_name(mlp.act),
            "norm_eps": next(
                (module.eps for module in model.modules() if isinstance(module, LayerNorm)), 1e-6
            ),
            **self.shapes(model),
            "pretrained_cfg": plain_config(model, self.class_count(model)),
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
        if "pretrained_cfg" in description:  # not in older experts
            set_config(model, restored_config(description["pretrained_cfg"]))
        return model


def _branches(name: str, block: nn.Module) -> tuple[Branch | None, Branch | None]:
    """Attention and MLP of a block."""
    left = chains_of(block, CHAINS)
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
        for chain, reader in zip(CHAINS, ("proj", "fc2"), strict=True)
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


def _mlp_layer_name(mlp: nn.Module) -> str:
    if type(mlp) is GluMlp:
        return "glu_gate_last" if mlp.gate_last else "glu_gate_first"
    return next(name for name, kind in _MLP_LAYERS.items() if type(mlp) is kind)
