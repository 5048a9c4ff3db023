"""A Vision Transformer in two halves that share its parameters: up to the tokens behind some block, and on from there.

Shape suffixes: B images, T tokens, D channels of the residual stream, K classes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

from agflow.models.resizing import resize_of

if TYPE_CHECKING:
    from agflow.models.vision_transformer import VisionTransformerAdapter


class Prefix(nn.Module):
    """The embeddings and the first blocks: images [B, C, H, W] to tokens [B, T, D].

    Attributes
    ----------
    model : a copy with the original's parameters that lacks what comes later
    """

    def __init__(self, adapter: VisionTransformerAdapter, model: nn.Module, blocks: int):
        super().__init__()
        anatomy = adapter.anatomy(model)
        self._adapter = adapter
        self.model = _without(model, (*(name for name, _ in anatomy.after), *anatomy.classifiers, *anatomy.behind))
        del adapter.blocks(self.model)[blocks:]
        self.training = model.training
        resize = resize_of(model)
        if resize is not None:
            self.register_forward_pre_hook(resize)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return _through(self._adapter.blocks(self.model), self._adapter.embed(self.model, images))


class Rest(nn.Module):
    """The other blocks and the classifier: tokens [B, T, D] to logits [B, K].

    Attributes
    ----------
    model : a copy with the original's parameters that lacks what comes earlier
    """

    def __init__(self, adapter: VisionTransformerAdapter, model: nn.Module, blocks: int):
        super().__init__()
        anatomy = adapter.anatomy(model)
        self._adapter = adapter
        self.model = _without(model, (anatomy.patch, *anatomy.embeddings, *(name for name, _ in anatomy.before)))
        del adapter.blocks(self.model)[:blocks]
        self.training = model.training

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self._adapter.classify(self.model, _through(self._adapter.blocks(self.model), x_BTD))


def _without(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """A copy of ``model`` that shares its parameters and lacks the modules and parameters of these names."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    view = copy.deepcopy(model, shared)
    for name in names:
        owner, _, leaf = name.rpartition(".")
        setattr(view.get_submodule(owner), leaf, None)
    return view


def _through(blocks: Iterable[nn.Module], x_BTD: torch.Tensor) -> torch.Tensor:
    for block in blocks:
        x_BTD = block(x_BTD)
    return x_BTD
