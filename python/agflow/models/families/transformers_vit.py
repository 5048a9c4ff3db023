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
from functools import partial
from typing import Any

import torch
from torch import nn

from agflow.data.preprocessing import Preprocessing
from agflow.data.processors import preprocessing_like
from agflow.models.branches import Chain
from agflow.models.channel_group import ChannelGroup
from agflow.models.families.labels import labels_of
from agflow.models.families.processor_file import known_processor, processor_files
from agflow.models.families.transformers_config import KEPT, NOTES, say_widths
from agflow.models.families.transformers_parts import (
    ACTIVATIONS,
    ATTENTIONS,
    CLASSIFIERS,
    LAYOUTS,
    MODELS,
    blocks_of,
    branches_of,
    classifiers_of,
    head_counts,
    holder_of_heads,
    in_base,
    is_known,
    layout_of,
    pooled,
    pooler_of,
    refusals,
)
from agflow.models.linear_units import LinearUnits
from agflow.models.self_attention import SelfAttention
from agflow.models.vision_transformer import VisionTransformerAdapter
from agflow.models.vit_family import Anatomy, Heads

_EMBEDDINGS = "cls_token", "distillation_token", "position_embeddings"


class TransformersVit(VisionTransformerAdapter):
    """Adapter for transformers' ViT and DeiT classifiers, of one or two averaged classifiers.

    After a cut the config says the new widths where it can, with one for all blocks: the model can
    then be saved with ``save_pretrained``. Where it cannot the model refuses that
    (:class:`agflow.models.families.transformers_uneven.Uneven`) and is saved with
    :func:`agflow.save`. An expert loads with the major version of transformers it was saved with,
    for the names of its weights are that version's.
    """

    family = "transformers_vit"
    models = MODELS
    library = "transformers"

    def recognises(self, model: nn.Module) -> bool:
        return is_known(model)

    def refusal(self, model: nn.Module) -> str | None:
        return next(refusals(model), None)

    def anatomy(self, model: nn.Module) -> Anatomy:
        base, place = model.base_model, partial(in_base, model)
        of_blocks = [branches_of(layout_of(model), name, block) for name, block in blocks_of(model)]
        patches, tokens = (
            base.embeddings.patch_embeddings.num_patches,
            base.embeddings.position_embeddings.shape[1],
        )
        return Anatomy(
            patches=patches,
            tokens=tokens,
            patch=place("embeddings.patch_embeddings.projection"),
            embeddings=tuple(
                place(f"embeddings.{name}")
                for name in _EMBEDDINGS
                if getattr(base.embeddings, name, None) is not None
            ),
            positions=place("embeddings.position_embeddings"),
            attention=tuple(attention for attention, _ in of_blocks),
            mlp=tuple(mlp for _, mlp in of_blocks),
            before=(),
            after=((place("layernorm"), tokens),),
            classifiers=CLASSIFIERS[type(model).__name__],
            behind=() if pooler_of(model) is None else ("pooler.dense",),
        )

    def chains(self, model: nn.Module) -> tuple[Chain, Chain]:
        return layout_of(model).chains

    def hidden(self, mlp: nn.Module) -> LinearUnits:
        return LAYOUTS[0 if hasattr(mlp, "fc2") else 1].hidden

    def projections(self, attention: nn.Module) -> tuple[str, ...]:
        return tuple(LAYOUTS[0 if holder_of_heads(attention) is attention else 1].heads.writers)

    def own_heads(self, attention: nn.Module) -> Heads:
        holder = holder_of_heads(attention)
        return Heads(holder.num_attention_heads, *[round(holder.scaling**-2)] * 3)

    def counts_heads(self, attention: nn.Module) -> tuple[str, ...]:
        return head_counts(attention)

    def count_heads(self, attention: nn.Module, heads: Heads) -> None:
        holder = holder_of_heads(attention)
        holder.num_attention_heads, holder.scaling = heads.count, heads.head_dim**-0.5
        width, whole = heads.head_dim, heads.count * heads.head_dim
        sizes = {"head_dim": width, "attention_head_size": width, "all_head_size": whole}
        for name, value in sizes.items():
            if hasattr(holder, name):
                setattr(holder, name, value)

    def free(self, attention: nn.Module) -> nn.Module:
        holder, heads = holder_of_heads(attention), self.own_heads(attention)
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
        return model.base_model.get_submodule(layout_of(model).blocks)

    def embed(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return model.base_model.embeddings(images)

    def classify(self, model: nn.Module, x_BTD: torch.Tensor) -> torch.Tensor:
        x_BTD = model.base_model.layernorm(x_BTD)
        if not CLASSIFIERS[type(model).__name__]:
            return pooled(model, x_BTD)
        logits = [
            classifier(x_BTD[:, token]) for token, classifier in enumerate(classifiers_of(model))
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

    def cut(self, model: nn.Module, layer: ChannelGroup, keep_U: torch.Tensor) -> None:
        super().cut(model, layer, keep_U)
        _note_widths(model, self.shapes(model))

    def reshape(self, model: nn.Module, shapes: dict[str, Any]) -> None:
        super().reshape(model, shapes)
        _note_widths(model, self.shapes(model))

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
        return preprocessing_like(known_processor(model, folder), self.input_size(model)[1:])

    def files(self, preprocessing: Preprocessing) -> dict[str, str]:
        return processor_files(preprocessing)

    def describe(self, model: nn.Module) -> dict[str, Any]:
        config, patch = model.config, model.base_model.embeddings.patch_embeddings.projection
        return {
            "class": type(model).__name__,
            "arguments": {
                **{name: _as_json(getattr(config, name)) for name in KEPT},
                "hidden_size": patch.out_channels,
                "num_channels": patch.in_channels,
                **{name: value for name in NOTES if (value := getattr(config, name, None))},
            },
            "num_labels": self.class_count(model),
            "pooler": pooler_of(model) is not None,
            "attention": config._attn_implementation,
            **self.shapes(model),
        }

    def build(self, description: dict[str, Any]) -> nn.Module:
        name, arguments, attention = (
            description[key] for key in ("class", "arguments", "attention")
        )
        if (
            name not in CLASSIFIERS
            or attention not in ATTENTIONS
            or arguments["hidden_act"] not in ACTIVATIONS
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
                **{key: arguments[key] for key in KEPT},
                **{key: arguments[key] for key in NOTES if key in arguments},
                num_attention_heads=1 if rest else whole,
                num_hidden_layers=len(description["heads"]),
                num_labels=len(labels) if labels else description["num_labels"],
                attn_implementation=attention,
            ),
            **({} if CLASSIFIERS[name] else {"add_pooling_layer": description["pooler"]}),
        )
        if labels:
            self.name_classes(model, labels)
        self.reshape(model, shapes)
        return model


def _note_widths(model: nn.Module, shapes: dict[str, Any]) -> None:
    """Let the config say the widths, or the model refuse save_pretrained."""
    from agflow.models.families.transformers_uneven import note_unevenness

    note_unevenness(model, say_widths(model, shapes))


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
