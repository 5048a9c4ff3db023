"""A Vision Transformer in two parts that share its parameters: up to a block, and from there on.

Shape suffixes: B images, T tokens, D channels of the residual stream, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

from agflow.models.copying import copy_of
from agflow.models.resizing import resize_of

if TYPE_CHECKING:
    from agflow.models.vision_transformer import VisionTransformerAdapter


class _Half(nn.Module):
    """Some of a model's blocks and what belongs to them.

    Attributes
    ----------
    model : a copy with the original's parameters, but without the other blocks
    """

    def __init__(
        self,
        adapter: VisionTransformerAdapter,
        model: nn.Module,
        lacks: Iterable[str],
        other_blocks: slice,
    ):
        super().__init__()
        self._adapter = adapter
        self.model = _without(model, lacks)
        del adapter.blocks(self.model)[other_blocks]
        self.training = model.training

    def _through_blocks(self, x_BTD: torch.Tensor) -> torch.Tensor:
        for block in self._adapter.blocks(self.model):
            x_BTD = block(x_BTD)
        return x_BTD


class Prefix(_Half):
    """The embeddings and the first blocks: images [B, C, H, W] to tokens [B, T, D]."""

    def __init__(self, adapter: VisionTransformerAdapter, model: nn.Module, blocks: int):
        anatomy = adapter.anatomy(model)
        super().__init__(
            adapter,
            model,
            (*(name for name, _ in anatomy.after), *anatomy.classifiers, *anatomy.behind),
            slice(blocks, None),
        )
        resize = resize_of(model)
        if resize is not None:
            self.register_forward_pre_hook(resize)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self._through_blocks(self._adapter.embed(self.model, images))


class Rest(_Half):
    """The other blocks and the classifier: tokens [B, T, D] to logits [B, K]."""

    def __init__(self, adapter: VisionTransformerAdapter, model: nn.Module, blocks: int):
        anatomy = adapter.anatomy(model)
        super().__init__(
            adapter,
            model,
            (anatomy.patch, *anatomy.embeddings, *(name for name, _ in anatomy.before)),
            slice(blocks),
        )

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return self._adapter.classify(self.model, self._through_blocks(x_BTD))


def _without(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """Copy ``model``, sharing its parameters, without the modules and parameters of these names."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    view = copy_of(model, shared)
    for name in names:
        owner, _, leaf = name.rpartition(".")
        setattr(view.get_submodule(owner), leaf, None)
    return view
