"""The parts that a supported VisionTransformer of timm has, and the reasons against others."""

# torch types every submodule as `Tensor | Module`; an adapter knows the classes of its family.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Iterator

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

from agflow.models.branches import Branches, block_refusals
from agflow.models.foreign_layers import kind_of
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
_BLOCK_REASONS = {
    "ResPostBlock": "post-norm blocks",
    "ParallelScalingBlock": "parallel blocks",
    "ParallelThingsBlock": "parallel blocks",
    "DiffParallelScalingBlock": "parallel blocks",
}


def refusals(model: VisionTransformer) -> Iterator[str]:
    """Yield every reason against ``model``; later ones rely on earlier ones not holding."""
    if type(model) not in (VisionTransformer, VisionTransformerDistilled):
        yield (f"it is a subclass, which may compute something else; expected {MODELS} themselves")
    if type(model.patch_embed) is not PatchEmbed or not isinstance(
        model.patch_embed.norm, nn.Identity
    ):
        yield (
            "the patch embedding must be one convolution: hybrid and normalised embeddings are not "
            "supported"
        )
    unpooled = not model.global_pool and bool(classifiers_of(model))
    if model.attn_pool is not None or unpooled:
        yield (
            f"global_pool={model.global_pool!r} is not supported, expected token, avg, avgmax or "
            "max"
        )
    for name in classifiers_of(model):
        head = getattr(model, name)
        if type(head) is not nn.Linear:
            yield (
                f"the classifier {name} is {kind_of(head)}, expected one plain torch.nn.Linear: "
                "timm's own place for what comes before it is model.fc_norm or model.head_drop"
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
        block, CHAINS, LayerNorm, "timm.layers.LayerNorm", _attention_refusals, _mlp_refusals
    )


def _attention_refusals(attn: nn.Module) -> Iterator[str]:
    if type(attn) not in (Attention, SelfAttention):
        yield f"attention of class {type(attn).__name__} is not supported"
    if type(attn) is Attention and (
        attn.gate is not None or not isinstance(attn.norm, nn.Identity)
    ):
        yield "gated or normalised attention outputs are not supported"
    reason = HEADS.refusal(attn)
    if reason is not None:
        yield f"attn.{reason}"


def _mlp_refusals(mlp: nn.Module) -> Iterator[str]:
    if type(mlp) not in HIDDEN:
        yield (
            f"an MLP of class {type(mlp).__name__} is not supported, expected "
            f"{', '.join(kind.__name__ for kind in HIDDEN)}"
        )
    if not isinstance(mlp.norm, nn.Identity):
        yield "a norm over the hidden channels of the MLP is not supported"
    if activation_name(mlp.act) is None:
        yield (
            f"activation {type(mlp.act).__name__} is not supported, expected one of "
            f"{', '.join(_ACTIVATIONS)}"
        )
    reason = HIDDEN[type(mlp)].refusal(mlp)
    if reason is not None:
        yield f"mlp.{reason}"


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
