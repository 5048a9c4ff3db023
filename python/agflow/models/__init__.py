"""Models: load and save them, count and describe them; how to add a model family.

A model of one's own needs an :class:`Adapter`: where its units are, and how to rebuild it. Take a
small Vision Transformer whose blocks may differ in width:

>>> import torch
>>> from torch import nn
>>> from torch.nn import functional as F
>>> class Attention(nn.Module):
...     def __init__(self, dim, heads, head_width):
...         super().__init__()
...         self.heads, self.head_width = heads, head_width
...         self.qkv = nn.Linear(dim, 3 * heads * head_width)
...         self.out = nn.Linear(heads * head_width, dim)
...     def forward(self, x):
...         qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.head_width))
...         q, k, v = qkv.permute(2, 0, 3, 1, 4)
...         return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
>>> class Mlp(nn.Module):
...     def __init__(self, dim, hidden):
...         super().__init__()
...         self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
...     def forward(self, x):
...         return self.down(F.gelu(self.up(x)))
>>> class Block(nn.Module):
...     def __init__(self, dim, heads, head_width, hidden):
...         super().__init__()
...         self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads, head_width)
...         self.norm2, self.mlp = nn.LayerNorm(dim), Mlp(dim, hidden)
...     def forward(self, x):
...         x = x + self.attention(self.norm1(x))
...         return x + self.mlp(self.norm2(x))
>>> class TinyViT(nn.Module):
...     def __init__(self, heads=(4, 4), hidden=(64, 64), dim=32, head_width=8, classes=10):
...         super().__init__()
...         self.patches = nn.Conv2d(3, dim, 8, stride=8)
...         self.position = nn.Parameter(torch.randn(16, dim))
...         sizes = zip(heads, hidden, strict=True)
...         self.blocks = nn.Sequential(*(Block(dim, n, head_width, m) for n, m in sizes))
...         self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)
...     def forward(self, images):
...         x = self.patches(images).flatten(2).transpose(1, 2) + self.position
...         return self.head(self.norm(self.blocks(x)).mean(1))

Its adapter says between which linear layers the units lie, and which numbers follow theirs:

>>> from agflow.models import Adapter, Attribute, LinearUnits, macs_of_layers, register
>>> UNITS = {"heads": LinearUnits({"qkv": 3}, "out"), "mlp": LinearUnits({"up": 1}, "down")}
>>> class TinyViTAdapter(Adapter):
...     family, models, kind = "tiny_vit", "TinyViT", TinyViT
...     def recognises(self, model):
...         return type(model) is self.kind
...     def layers(self, model):
...         found = []
...         for i, block in enumerate(model.blocks):
...             name, width = f"blocks.{i}.attention", block.attention.head_width
...             found.append(UNITS["heads"].layer(
...                 name, "heads", block.attention, tokens=16, unit_width=width,
...                 attributes=(Attribute(name, "heads"),)))
...             found.append(UNITS["mlp"].layer(f"blocks.{i}.mlp", "mlp", block.mlp, tokens=16))
...         return found
...     def input_size(self, model):
...         return 3, 32, 32
...     def macs(self, model):
...         outside = 16 * model.patches.weight.numel() + model.head.weight.numel()
...         return outside + macs_of_layers(self.layers(model))
...     def describe(self, model):
...         return {"heads": [block.attention.heads for block in model.blocks],
...                 "hidden": [block.mlp.up.out_features for block in model.blocks]}
...     def build(self, description):
...         return self.kind(**description)

From here on TinyViT is measured, cut, repaired, saved and loaded like any other family:

>>> register(TinyViTAdapter())
>>> from agflow.models import count_macs, describe
>>> model = TinyViT().eval()
>>> count_macs(model)
393536
>>> light, layer = TinyViT().eval(), TinyViTAdapter().layers(model)[0]
>>> TinyViTAdapter().cut(light, layer, torch.tensor([0, 2]))
>>> describe(light)
{'family': 'tiny_vit', 'heads': [2, 4], 'hidden': [64, 64]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.models.adapter import Adapter as Adapter, macs_of_layers as macs_of_layers
    from agflow.models.callables import as_module as as_module
    from agflow.models.channel_group import (
        KINDS as KINDS,
        Attribute as Attribute,
        ChannelGroup as ChannelGroup,
        Member as Member,
        Run as Run,
        Tap as Tap,
        channels_of as channels_of,
    )
    from agflow.models.classifier import Head as Head
    from agflow.models.computed_weights import plain_weights as plain_weights
    from agflow.models.expert import (
        expert_preprocessing as expert_preprocessing,
        expert_tuning as expert_tuning,
        load_expert as load_expert,
        save_expert as save_expert,
    )
    from agflow.models.forward import model_logits as model_logits
    from agflow.models.group_overview import (
        GroupOverview as GroupOverview,
        describe_groups as describe_groups,
    )
    from agflow.models.head import (
        class_count as class_count,
        class_names as class_names,
        known_classes as known_classes,
        only_classes as only_classes,
    )
    from agflow.models.hidden_state import final_hidden as final_hidden, head_of as head_of
    from agflow.models.linear_units import LinearUnits as LinearUnits
    from agflow.models.load import load_model as load_model
    from agflow.models.operations import model_macs as model_macs
    from agflow.models.outputs import features_of as features_of, logits_of as logits_of
    from agflow.models.preprocessing import preprocessing_of as preprocessing_of
    from agflow.models.registry import (
        adapter_for as adapter_for,
        build as build,
        count_macs as count_macs,
        count_params as count_params,
        describe as describe,
        model_name as model_name,
        prefix_macs as prefix_macs,
        register as register,
        split as split,
    )
    from agflow.models.resolution import at_image_size as at_image_size, image_size as image_size

_HOMES = {
    "Adapter": "adapter",
    "Attribute": "channel_group",
    "ChannelGroup": "channel_group",
    "GroupOverview": "group_overview",
    "Head": "classifier",
    "KINDS": "channel_group",
    "LinearUnits": "linear_units",
    "Member": "channel_group",
    "Run": "channel_group",
    "Tap": "channel_group",
    "adapter_for": "registry",
    "as_module": "callables",
    "at_image_size": "resolution",
    "build": "registry",
    "channels_of": "channel_group",
    "class_count": "head",
    "class_names": "head",
    "count_macs": "registry",
    "count_params": "registry",
    "describe": "registry",
    "describe_groups": "group_overview",
    "expert_preprocessing": "expert",
    "expert_tuning": "expert",
    "features_of": "outputs",
    "final_hidden": "hidden_state",
    "head_of": "hidden_state",
    "image_size": "resolution",
    "known_classes": "head",
    "load_expert": "expert",
    "load_model": "load",
    "logits_of": "outputs",
    "macs_of_layers": "adapter",
    "model_logits": "forward",
    "model_macs": "operations",
    "model_name": "registry",
    "only_classes": "head",
    "plain_weights": "computed_weights",
    "prefix_macs": "registry",
    "preprocessing_of": "preprocessing",
    "register": "registry",
    "save_expert": "expert",
    "split": "registry",
}
__all__ = [
    "Adapter",
    "Attribute",
    "ChannelGroup",
    "GroupOverview",
    "Head",
    "KINDS",
    "LinearUnits",
    "Member",
    "Run",
    "Tap",
    "adapter_for",
    "as_module",
    "at_image_size",
    "build",
    "channels_of",
    "class_count",
    "class_names",
    "count_macs",
    "count_params",
    "describe",
    "describe_groups",
    "expert_preprocessing",
    "expert_tuning",
    "features_of",
    "final_hidden",
    "head_of",
    "image_size",
    "known_classes",
    "load_expert",
    "load_model",
    "logits_of",
    "macs_of_layers",
    "model_logits",
    "model_macs",
    "model_name",
    "only_classes",
    "plain_weights",
    "prefix_macs",
    "preprocessing_of",
    "register",
    "save_expert",
    "split",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
