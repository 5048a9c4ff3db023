"""Hugging Face's ViT and DeiT for image classification. transformers is imported only when such a model is built."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from agflow.models.adapter import Adapter, PrunableLayer, channels_of, macs_of_layers
from agflow.models.linear_units import LinearUnits

_CLASSIFIERS = {
    "ViTForImageClassification": ("classifier",),
    "DeiTForImageClassification": ("classifier",),
    "DeiTForImageClassificationWithTeacher": ("cls_classifier", "distillation_classifier"),
}
_CONFIG = ("hidden_size", "num_attention_heads", "intermediate_size", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob",
           "layer_norm_eps", "image_size", "patch_size", "num_channels", "qkv_bias")
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish")
_ATTENTIONS = ("sdpa", "eager")  # transformers would fetch and run code for other names: an expert folder must not ask for it


@dataclass(frozen=True)
class _Layout:
    """Where a version of transformers has the blocks below the base model, and the two modules with units below a block."""

    blocks: str
    attention: str
    heads: LinearUnits
    mlp: str
    hidden: LinearUnits

    def units(self, layer: PrunableLayer) -> LinearUnits:
        return self.heads if layer.group == "heads" else self.hidden


_LAYOUTS = (
    _Layout("layers", "attention", LinearUnits({"q_proj": 1, "k_proj": 1, "v_proj": 1}, "o_proj"), "mlp", LinearUnits({"fc1": 1}, "fc2")),
    # transformers 4, where the layers of the MLP are a block's own children
    _Layout("encoder.layer", "attention", LinearUnits({"attention.query": 1, "attention.key": 1, "attention.value": 1}, "output.dense"),
            "", LinearUnits({"intermediate.dense": 1}, "output.dense")),
)


class TransformersVit(Adapter):
    """Adapter for transformers' ViT and DeiT classifiers, DeiT's with two averaged classifiers included.

    A cut changes the model's modules and leaves its config, which has one width for all layers: save such models with
    :func:`agflow.save_expert`, not with ``save_pretrained``. An expert loads with the major version of transformers it
    was saved with, for the names of its weights are that version's.
    """

    family = "transformers_vit"
    models = f"transformers' {', '.join(_CLASSIFIERS)}"

    def recognises(self, model: nn.Module) -> bool:
        return any(_is_ours(kind) for kind in type(model).__mro__)

    def refusal(self, model: nn.Module) -> str | None:
        return next(_refusals(model), None)

    def layers(self, model: nn.Module) -> list[PrunableLayer]:
        layout, found = _layout(model), []
        tokens = model.base_model.embeddings.position_embeddings.shape[1]
        for i, (attention, mlp) in enumerate(_blocks(model)):
            name = f"{model.base_model_prefix}.{layout.blocks}.{i}"
            width = layout.heads.channels(attention) // _holder_of_heads(attention).num_attention_heads
            found.append(layout.heads.layer(f"{name}.{layout.attention}", "heads", attention, tokens=tokens, unit_width=width))
            found.append(layout.hidden.layer(f"{name}.{layout.mlp}".rstrip("."), "mlp", mlp, tokens=tokens))
        return found

    def weights(self, model: nn.Module, layer: PrunableLayer) -> list[tuple[torch.Tensor, int]]:
        return _layout(model).units(layer).weights(model.get_submodule(layer.name))

    def cut(self, model: nn.Module, layer: PrunableLayer, keep_U: torch.Tensor) -> None:
        module = model.get_submodule(layer.name)
        _layout(model).units(layer).cut(module, channels_of(keep_U, layer.unit_width))
        if layer.group == "heads":
            _count_heads(module, len(keep_U), layer.unit_width)

    def input_size(self, model: nn.Module) -> tuple[int, int, int]:
        return model.config.num_channels, *model.base_model.embeddings.patch_embeddings.image_size

    def macs(self, model: nn.Module) -> int:
        patch = model.base_model.embeddings.patch_embeddings
        classifiers = sum(classifier.weight.numel() for classifier in _classifiers(model))
        return patch.num_patches * patch.projection.weight.numel() + macs_of_layers(self.layers(model)) + classifiers

    def describe(self, model: nn.Module) -> dict[str, Any]:
        config, layout = model.config, _layout(model)
        return {
            "class": type(model).__name__,
            "arguments": {name: _as_json(getattr(config, name)) for name in _CONFIG},
            "labels": [label for _, label in sorted(config.id2label.items())],
            "attention": config._attn_implementation,
            "heads": [_holder_of_heads(attention).num_attention_heads for attention, _ in _blocks(model)],
            "mlp": [layout.hidden.channels(mlp) for _, mlp in _blocks(model)],
        }

    def build(self, description: dict[str, Any]) -> nn.Module:
        name, arguments, labels, attention = (description[key] for key in ("class", "arguments", "labels", "attention"))
        if name not in _CLASSIFIERS or attention not in _ATTENTIONS or arguments["hidden_act"] not in _ACTIVATIONS:
            raise ValueError(f"{name!r} with attention {attention!r} and activation {arguments['hidden_act']!r} is not supported")
        kind = getattr(importlib.import_module("transformers"), name)
        model = kind(kind.config_class(
            **{key: arguments[key] for key in _CONFIG}, num_hidden_layers=len(description["heads"]),
            id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)}, attn_implementation=attention,
        ))
        layout, width = _layout(model), arguments["hidden_size"] // arguments["num_attention_heads"]
        for (attention, mlp), heads, hidden in zip(_blocks(model), description["heads"], description["mlp"], strict=True):
            layout.heads.resize(attention, heads * width)
            _count_heads(attention, heads, width)
            layout.hidden.resize(mlp, hidden)
        return model


def _is_ours(kind: type) -> bool:
    return kind.__name__ in _CLASSIFIERS and kind.__module__ in ("transformers.models.vit.modeling_vit", "transformers.models.deit.modeling_deit")


def _layout(model: nn.Module) -> _Layout | None:
    return next((layout for layout in _LAYOUTS if hasattr(model.base_model, layout.blocks.partition(".")[0])), None)


def _blocks(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """The two modules with units of every block."""
    layout = _layout(model)
    return [(block.get_submodule(layout.attention), block.get_submodule(layout.mlp)) for block in model.base_model.get_submodule(layout.blocks)]


def _holder_of_heads(attention: nn.Module) -> nn.Module:
    """The module that counts its heads; in transformers 4 it lies inside the attention."""
    return getattr(attention, "attention", attention)


def _count_heads(attention: nn.Module, heads: int, width: int) -> None:
    holder = _holder_of_heads(attention)
    holder.num_attention_heads = heads
    if hasattr(holder, "all_head_size"):
        holder.all_head_size = heads * width


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _classifiers(model: nn.Module) -> list[nn.Module]:
    return [getattr(model, name) for name in _CLASSIFIERS[type(model).__name__]]


def _refusals(model: nn.Module) -> Iterator[str]:
    """Every reason against ``model``, the most telling first; later ones may rely on earlier ones not holding."""
    config, layout = model.config, _layout(model)
    if not _is_ours(type(model)):
        yield f"it is a subclass, which may compute something else; expected {TransformersVit.models} themselves"
    if layout is None:
        yield "this version of transformers lays its blocks out in a way that is not known, expected version 4 or 5"
    if any(type(classifier) is not nn.Linear or classifier.out_features != config.num_labels for classifier in _classifiers(model)):
        yield f"the classifier must be one torch.nn.Linear with num_labels={config.num_labels} outputs, as the config says"
    if not config.return_dict:
        yield "it returns tuples: set model.config.return_dict = True"
    if config._attn_implementation not in _ATTENTIONS:
        yield (f"attention implementation {config._attn_implementation!r} is not supported, expected one of {', '.join(_ATTENTIONS)}: "
               f"call model.set_attn_implementation({_ATTENTIONS[0]!r})")
    if config.hidden_act not in _ACTIVATIONS:
        yield f"activation {config.hidden_act!r} is not supported, expected one of {', '.join(_ACTIVATIONS)}"
    for i, (attention, mlp) in enumerate(_blocks(model)):
        for reason in filter(None, (layout.heads.refusal(attention), layout.hidden.refusal(mlp))):
            yield f"{layout.blocks}.{i}: {reason}"
