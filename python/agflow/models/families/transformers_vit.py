"""Hugging Face's ViT and DeiT for image classification.

transformers is imported only when such a model is built.
"""

# torch types every submodule as `Tensor | Module`; an adapter knows the classes of its family.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false
# pyright: reportCallIssue=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false

from __future__ import annotations

import importlib
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agflow.data.preprocessing import Preprocessing
from agflow.data.processors import preprocessing_like
from agflow.models.branches import Chain, chains_of
from agflow.models.families.labels import labels_of, misnumbered
from agflow.models.families.processor_file import saved_processor
from agflow.models.foreign_layers import kind_of
from agflow.models.linear_units import LinearUnits
from agflow.models.self_attention import SelfAttention
from agflow.models.vision_transformer import Anatomy, Branch, Heads, VisionTransformerAdapter

_CLASSIFIERS = {
    "ViTForImageClassification": ("classifier",),
    "DeiTForImageClassification": ("classifier",),
    "DeiTForImageClassificationWithTeacher": ("cls_classifier", "distillation_classifier"),
}
_EMBEDDINGS = "cls_token", "distillation_token", "position_embeddings"
_CONFIG = (
    "hidden_size",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "image_size",
    "patch_size",
    "num_channels",
    "qkv_bias",
)
_ACTIVATIONS = (
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
_ATTENTIONS = ("sdpa", "eager")


@dataclass(frozen=True)
class _Layout:
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


_LAYOUTS = (
    _Layout(
        "layers",
        (("layernorm_before", "attention", "dropout"), ("layernorm_after", "mlp", "dropout")),
        "attention",
        LinearUnits({"q_proj": 1, "k_proj": 1, "v_proj": 1}, "o_proj"),
        "mlp",
        LinearUnits({"fc1": 1}, "fc2"),
    ),
    # transformers 4, where the layers of the MLP are a block's own children
    _Layout(
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


class TransformersVit(VisionTransformerAdapter):
    """Adapter for transformers' ViT and DeiT classifiers, of one or two averaged classifiers.

    A cut changes the model's modules and leaves its config, which has one width for all layers:
    save such models with :func:`agflow.save`, not with ``save_pretrained``. An expert loads with
    the major version of transformers it was saved with, for the names of its weights are that
    version's.
    """

    family = "transformers_vit"
    models = f"transformers' {', '.join(_CLASSIFIERS)}"
    library = "transformers"

    def recognises(self, model: nn.Module) -> bool:
        return any(_is_ours(kind) for kind in type(model).__mro__)

    def refusal(self, model: nn.Module) -> str | None:
        return next(_refusals(model), None)

    def anatomy(self, model: nn.Module) -> Anatomy:
        base, prefix = model.base_model, model.base_model_prefix
        of_blocks = [_branches(_layout(model), name, block) for name, block in _blocks(model)]
        patches, tokens = (
            base.embeddings.patch_embeddings.num_patches,
            base.embeddings.position_embeddings.shape[1],
        )
        return Anatomy(
            patches=patches,
            tokens=tokens,
            patch=f"{prefix}.embeddings.patch_embeddings.projection",
            embeddings=tuple(
                f"{prefix}.embeddings.{name}"
                for name in _EMBEDDINGS
                if getattr(base.embeddings, name, None) is not None
            ),
            positions=f"{prefix}.embeddings.position_embeddings",
            attention=tuple(attention for attention, _ in of_blocks),
            mlp=tuple(mlp for _, mlp in of_blocks),
            before=(),
            after=((f"{prefix}.layernorm", tokens),),
            classifiers=_CLASSIFIERS[type(model).__name__],
        )

    def chains(self, model: nn.Module) -> tuple[Chain, Chain]:
        return _layout(model).chains

    def hidden(self, mlp: nn.Module) -> LinearUnits:
        return _LAYOUTS[0 if hasattr(mlp, "fc2") else 1].hidden

    def projections(self, attention: nn.Module) -> tuple[str, ...]:
        return tuple(_LAYOUTS[0 if _holder_of_heads(attention) is attention else 1].heads.writers)

    def own_heads(self, attention: nn.Module) -> Heads:
        holder = _holder_of_heads(attention)
        return Heads(holder.num_attention_heads, *[round(holder.scaling**-2)] * 3)

    def count_heads(self, attention: nn.Module, heads: Heads) -> None:
        holder = _holder_of_heads(attention)
        holder.num_attention_heads, holder.scaling = heads.count, heads.head_dim**-0.5
        for name, value in (
            ("head_dim", heads.head_dim),
            ("attention_head_size", heads.head_dim),
            ("all_head_size", heads.count * heads.head_dim),
        ):
            if hasattr(holder, name):
                setattr(holder, name, value)

    def free(self, attention: nn.Module) -> nn.Module:
        holder, heads = _holder_of_heads(attention), self.own_heads(attention)
        projections = {
            name.rpartition(".")[2]: attention.get_submodule(name)
            for name in self.projections(attention)
        }
        output = {"o_proj": attention.o_proj} if holder is attention else {}
        free = SelfAttention(
            projections,
            output,
            {},
            num_heads=heads.count,
            head_dim=heads.head_dim,
            dropout=holder.attention_dropout if holder is attention else holder.dropout_prob,
            in_tuple=True,
            training=holder.training,
        )
        if holder is attention:
            return free
        attention.attention = free
        return attention

    def blocks(self, model: nn.Module) -> nn.ModuleList:
        return model.base_model.get_submodule(_layout(model).blocks)

    def embed(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return model.base_model.embeddings(images)

    def classify(self, model: nn.Module, x_BTD: torch.Tensor) -> torch.Tensor:
        x_BTD = model.base_model.layernorm(x_BTD)
        logits = [
            classifier(x_BTD[:, token]) for token, classifier in enumerate(_classifiers(model))
        ]
        return logits[0] if len(logits) == 1 else (logits[0] + logits[1]) / 2

    def note_classes(self, model: nn.Module, count: int) -> None:
        model.config.num_labels = model.num_labels = count  # labels without a name

    def class_names(self, model: nn.Module) -> list[str] | None:
        labels = labels_of(model.config, self.class_count(model))
        unnamed = all(label == f"LABEL_{i}" for i, label in enumerate(labels))
        return None if unnamed else labels

    def name_classes(self, model: nn.Module, names: list[str]) -> None:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: i for i, name in enumerate(names)}
        model.num_labels = len(names)

    def set_stream(self, model: nn.Module, channels: int) -> None:
        """Nothing to do: no module reads it, and the config stays that of the dense model."""

    def input_size(self, model: nn.Module) -> tuple[int, int, int]:
        patches = model.base_model.embeddings.patch_embeddings
        return patches.projection.in_channels, *patches.image_size

    def note_image_size(self, model: nn.Module, height: int, width: int) -> None:
        embeddings = model.base_model.embeddings
        patches = embeddings.patch_embeddings
        patches.image_size = height, width
        model.config.image_size = height if height == width else [height, width]
        patches.num_patches = (height // patches.patch_size[0]) * (width // patches.patch_size[1])
        if hasattr(embeddings, "image_size"):  # not in transformers 4
            embeddings.image_size = height, width

    def preprocessing(self, model: nn.Module, folder: pathlib.Path | None = None) -> Preprocessing:
        kind = f"{type(model).__name__.partition('For')[0]}ImageProcessor"
        own = getattr(importlib.import_module("transformers"), kind)().to_dict()
        values = {**own, **saved_processor(model, folder)}
        return preprocessing_like(values, self.input_size(model)[1:])

    def describe(self, model: nn.Module) -> dict[str, Any]:
        config, patch = model.config, model.base_model.embeddings.patch_embeddings.projection
        return {
            "class": type(model).__name__,
            "arguments": {
                **{name: _as_json(getattr(config, name)) for name in _CONFIG},
                "hidden_size": patch.out_channels,
                "num_channels": patch.in_channels,
            },
            "num_labels": self.class_count(model),
            "attention": config._attn_implementation,
            **self.shapes(model),
        }

    def build(self, description: dict[str, Any]) -> nn.Module:
        name, arguments, attention = (
            description[key] for key in ("class", "arguments", "attention")
        )
        if (
            name not in _CLASSIFIERS
            or attention not in _ATTENTIONS
            or arguments["hidden_act"] not in _ACTIVATIONS
        ):
            raise ValueError(
                f"{name!r} with attention {attention!r} and activation {arguments['hidden_act']!r} "
                "is not supported"
            )
        labels = description.get("labels")  # of experts whose "classes" are not a key of their own
        heads = arguments.get("num_attention_heads")  # in experts saved before cuts inside heads
        shapes = {
            "head_dim": heads and arguments["hidden_size"] // heads,
            "inner": [None] * len(description["heads"]),
            **description,
        }
        whole, rest = divmod(arguments["hidden_size"], shapes["head_dim"])
        kind = getattr(importlib.import_module("transformers"), name)
        model = kind(
            kind.config_class(
                **{key: arguments[key] for key in _CONFIG},
                num_attention_heads=1 if rest else whole,
                num_hidden_layers=len(description["heads"]),
                num_labels=len(labels) if labels else description["num_labels"],
                attn_implementation=attention,
            )
        )
        if labels:
            self.name_classes(model, labels)
        self.reshape(model, shapes)
        return model


def _is_ours(kind: type) -> bool:
    return kind.__name__ in _CLASSIFIERS and kind.__module__ in (
        "transformers.models.vit.modeling_vit",
        "transformers.models.deit.modeling_deit",
    )


def _layout(model: nn.Module) -> _Layout | None:
    return next(
        (
            layout
            for layout in _LAYOUTS
            if hasattr(model.base_model, layout.blocks.partition(".")[0])
        ),
        None,
    )


def _blocks(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every block with its name."""
    path = _layout(model).blocks
    return [
        (f"{model.base_model_prefix}.{path}.{name}", block)
        for name, block in model.base_model.get_submodule(path).named_children()
    ]


def _branches(layout: _Layout, name: str, block: nn.Module) -> tuple[Branch | None, Branch | None]:
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


def _holder_of_heads(attention: nn.Module) -> nn.Module:
    """The module that counts its heads; in transformers 4 it lies inside the attention."""
    return getattr(attention, "attention", attention)


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _classifiers(model: nn.Module) -> list[nn.Module]:
    return [getattr(model, name) for name in _CLASSIFIERS[type(model).__name__]]


def _refusals(model: nn.Module) -> Iterator[str]:
    """Yield every reason against ``model``; later ones rely on earlier ones not holding."""
    config, layout = model.config, _layout(model)
    if not _is_ours(type(model)):
        yield (
            "it is a subclass, which may compute something else; expected "
            f"{TransformersVit.models} themselves"
        )
    if layout is None:
        yield (
            "this version of transformers lays its blocks out in a way that is not known, expected "
            "version 4 or 5"
        )
    for name in _CLASSIFIERS.get(type(model).__name__, ()):
        classifier = getattr(model, name)
        if type(classifier) is not nn.Linear:
            yield f"{name} is {kind_of(classifier)}; expected one torch.nn.Linear"
    reason = misnumbered(config.id2label)
    if reason is not None:
        yield reason
    if not config.return_dict:
        yield "it returns tuples: set model.config.return_dict = True"
    if config._attn_implementation not in _ATTENTIONS:
        yield (
            f"attention implementation {config._attn_implementation!r} is not supported, expected "
            f"one of {', '.join(_ATTENTIONS)}: "
            f"call model.set_attn_implementation({_ATTENTIONS[0]!r})"
        )
    if config.hidden_act not in _ACTIVATIONS:
        yield (
            f"activation {config.hidden_act!r} is not supported, expected one of "
            f"{', '.join(_ACTIVATIONS)}"
        )
    for name, block in _blocks(model):
        left = chains_of(block, layout.chains)
        for chain, inside, units in zip(
            layout.chains,
            (layout.attention, layout.mlp),
            (layout.heads, layout.hidden),
            strict=True,
        ):
            reason = units.refusal(block.get_submodule(inside)) if chain in left else None
            if reason is not None:
                yield f"{name}: {reason}"
