"""The parts that a VisionTransformer of timm has whose arithmetic is known."""

# torch types every submodule as `Tensor | Module`; an adapter knows the classes of its family.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false

from __future__ import annotations

from timm.layers import (
    Attention,
    GluMlp,
    LayerNorm,
    Mlp,
    PatchEmbed,
    SwiGLU,
    get_act_layer,
)
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from agflow.models.branches import Branches, knows_block
from agflow.models.linear_units import LinearUnits
from agflow.models.self_attention import SelfAttention

MODELS = "timm's VisionTransformer and VisionTransformerDistilled"
CHAINS = ("norm1", "attn", "ls1", "drop_path1"), ("norm2", "mlp", "ls2", "drop_path2")
HEADS = LinearUnits({"qkv": 3}, "proj")
HIDDEN = {  # a gate and the value it multiplies are one unit: Y is their product
    Mlp: LinearUnits({"fc1": 1}, "fc2"),
    GluMlp: LinearUnits({"fc1": 2}, "fc2"),
    SwiGLU: LinearUnits({"fc1_g": 1, "fc1_x": 1}, "fc2"),
}
_ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu")


def is_known(model: nn.Module) -> bool:
    """Whether a model is one of timm's two classes, and made of parts that compute as theirs do."""
    return (
        type(model) in (VisionTransformer, VisionTransformerDistilled)
        and type(model.patch_embed) is PatchEmbed
        and isinstance(model.patch_embed.norm, nn.Identity)
        and model.attn_pool is None
        and bool(model.global_pool or not classifiers_of(model))
        and all(type(getattr(model, name)) is nn.Linear for name in classifiers_of(model))
        and all(map(_knows_block, model.blocks))
    )


def _knows_block(block: nn.Module) -> bool:
    return type(block) in (Block, Branches) and knows_block(
        block, CHAINS, LayerNorm, _knows_attention, _knows_mlp
    )


def _knows_attention(attn: nn.Module) -> bool:
    plain = type(attn) is Attention and attn.gate is None and isinstance(attn.norm, nn.Identity)
    return (plain or type(attn) is SelfAttention) and HEADS.refusal(attn) is None


def _knows_mlp(mlp: nn.Module) -> bool:
    return (
        type(mlp) in HIDDEN
        and isinstance(mlp.norm, nn.Identity)
        and activation_name(mlp.act) is not None
        and HIDDEN[type(mlp)].refusal(mlp) is None
    )


def classifiers_of(model: VisionTransformer) -> tuple[str, ...]:
    """Names of the linear layers that give the logits; none of a model that puts out features."""
    names = ("head", "head_dist") if isinstance(model, VisionTransformerDistilled) else ("head",)
    return () if all(isinstance(getattr(model, name), nn.Identity) for name in names) else names


def activation_name(act: nn.Module) -> str | None:
    """timm's name of an activation; None for one that may not act on each channel alone."""
    # nn.GELU is timm's default; its own GELU class, which "gelu" names, computes the same.
    if type(act) is nn.GELU:
        return "gelu" if act.approximate == "none" else "gelu_tanh"
    return next((name for name in _ACTIVATIONS if type(act) is get_act_layer(name)), None)
