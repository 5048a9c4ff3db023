"""The parts that a supported model of transformers has, and what may stand against its state."""

# torch types every submodule as `Tensor | Module`; an adapter knows the classes of its family.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from agflow.models.branches import Chain, chains_of
from agflow.models.families.labels import misnumbered
from agflow.models.linear_units import LinearUnits
from agflow.models.vit_family import Branch

CLASSIFIERS = {
    "ViTForImageClassification": ("classifier",),
    "DeiTForImageClassification": ("classifier",),
    "DeiTForImageClassificationWithTeacher": ("cls_classifier", "distillation_classifier"),
    "ViTModel": (),
    "DeiTModel": (),
}
"""The linear layers that give the logits, by class; none of models that put out features."""
MODELS = f"transformers' {', '.join(CLASSIFIERS)}"
_MODULES = (
    "transformers.models.vit.modeling_vit",
    "transformers.models.deit.modeling_deit",
    "agflow.models.families.transformers_uneven",
)
ACTIVATIONS = (
    "gelu",
    "gelu_new",
    "gelu_fast",
    "gelu_pytorch_tanh",
    "quick_gelu",
    "relu",
    "silu",
    "swish",
)
# For other names transformers would fetch and run code, which an expert folder must not ask for.
ATTENTIONS = ("sdpa", "eager")


@dataclass(frozen=True)
class Layout:
    """The modules of a version of transformers: its blocks, and what a block holds.

    Attributes
    ----------
    blocks : the blocks, below the base model
    chains : of attention and MLP
    attention, mlp : the modules that hold the units
    heads, hidden : the units in them
    """

    blocks: str
    chains: tuple[Chain, Chain]
    attention: str
    heads: LinearUnits
    mlp: str
    hidden: LinearUnits


LAYOUTS = (
    Layout(
        "layers",
        (("layernorm_before", "attention", "dropout"), ("layernorm_after", "mlp", "dropout")),
        "attention",
        LinearUnits({"q_proj": 1, "k_proj": 1, "v_proj": 1}, "o_proj"),
        "mlp",
        LinearUnits({"fc1": 1}, "fc2"),
    ),
    # transformers 4, where the layers of the MLP are a block's own children
    Layout(
        "encoder.layer",
        (
            ("layernorm_before", "attention"),
            ("layernorm_after", "intermediate", "output.dense", "output.dropout"),
        ),
        "attention",
        LinearUnits(
            {"attention.query": 1, "attention.key": 1, "attention.value": 1}, "output.dense"
        ),
        "",
        LinearUnits({"intermediate.dense": 1}, "output.dense"),
    ),
)


def is_ours(kind: type) -> bool:
    """Whether a class is one of those; also where agflow has made it refuse save_pretrained."""
    return kind.__name__ in CLASSIFIERS and kind.__module__ in _MODULES


def layout_of(model: nn.Module) -> Layout | None:
    """The layout of the installed version; None for one that is not known."""
    return next(
        (
            layout
            for layout in LAYOUTS
            if hasattr(model.base_model, layout.blocks.partition(".")[0])
        ),
        None,
    )


def blocks_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every block with its name."""
    path = layout_of(model).blocks
    return [
        (in_base(model, f"{path}.{name}"), block)
        for name, block in model.base_model.get_submodule(path).named_children()
    ]


def in_base(model: nn.Module, name: str) -> str:
    """The name that a module of the base model has in the model, which may be that itself."""
    return name if model.base_model is model else f"{model.base_model_prefix}.{name}"


def pooler_of(model: nn.Module) -> nn.Module | None:
    """What makes the features of the image from the class token, in a model without classifier."""
    return None if CLASSIFIERS[type(model).__name__] else model.pooler


def pooled(model: nn.Module, x_BTD: torch.Tensor) -> torch.Tensor:
    """The features that a model without a classifier puts out."""
    pooler = pooler_of(model)
    return x_BTD if pooler is None else pooler(x_BTD)


def branches_of(layout: Layout, name: str, block: nn.Module) -> tuple[Branch | None, Branch | None]:
    """Attention and MLP of a block."""
    left, found = chains_of(block, layout.chains), []
    for chain, inside, units in zip(
        layout.chains, (layout.attention, layout.mlp), (layout.heads, layout.hidden), strict=True
    ):
        holder = f"{name}.{inside}".rstrip(".")
        found.append(
            Branch(name, chain, holder, f"{name}.{chain[0]}", f"{holder}.{units.reader}")
            if chain in left
            else None
        )
    return tuple(found)


def holder_of_heads(attention: nn.Module) -> nn.Module:
    """The module that counts its heads; in transformers 4 it lies inside the attention."""
    return getattr(attention, "attention", attention)


def head_counts(attention: nn.Module) -> tuple[str, ...]:
    """Names below an attention of its numbers that its heads are proportional to."""
    holder = holder_of_heads(attention)
    place = "" if holder is attention else "attention."
    counts = (name for name in ("num_attention_heads", "all_head_size") if hasattr(holder, name))
    return tuple(place + name for name in counts)


def classifiers_of(model: nn.Module) -> list[nn.Module]:
    """The linear layers that give the logits, which are averaged."""
    return [getattr(model, name) for name in CLASSIFIERS[type(model).__name__]]


def is_known(model: nn.Module) -> bool:
    """Whether a model is one of these classes, and made of parts that compute as theirs do."""
    layout = layout_of(model) if is_ours(type(model)) else None
    return (
        layout is not None
        and all(type(classifier) is nn.Linear for classifier in classifiers_of(model))
        and model.config.hidden_act in ACTIVATIONS
        and all(_knows_block(layout, block) for _, block in blocks_of(model))
    )


def _knows_block(layout: Layout, block: nn.Module) -> bool:
    left = chains_of(block, layout.chains)
    return all(
        units.refusal(block.get_submodule(inside)) is None
        for chain, inside, units in zip(
            layout.chains,
            (layout.attention, layout.mlp),
            (layout.heads, layout.hidden),
            strict=True,
        )
        if chain in left
    )


def refusals(model: nn.Module) -> Iterator[str]:
    """Yield every reason against the state of ``model``."""
    config = model.config
    reason = misnumbered(config.id2label)
    if reason is not None:
        yield reason
    if not config.return_dict:
        yield "it returns tuples: set model.config.return_dict = True"
    if config._attn_implementation not in ATTENTIONS:
        yield (
            f"attention implementation {config._attn_implementation!r} is not supported, expected "
            f"one of {', '.join(ATTENTIONS)}: "
            f"call model.set_attn_implementation({ATTENTIONS[0]!r})"
        )
