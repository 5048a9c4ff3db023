"""The base of the adapters of all Vision Transformers.

The adapter of a family says where the parts of a model are
(:class:`agflow.models.vit_family.VisionTransformerFamily`); what can be pruned follows from that as
data (:mod:`agflow.models.vit_groups`), and here is what is special about a transformer: attentions
are freed of their family's arithmetic before heads lose channels, blocks can lose a branch, and
position embeddings follow the images.
"""

# torch types every submodule as `Tensor | Module`; the adapter knows what its branches name.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from agflow._utils.modules import put
from agflow.errors import InvalidValueError
from agflow.models.channel_group import ChannelGroup
from agflow.models.group_weights import weights_of
from agflow.models.linear_units import keep_outputs
from agflow.models.slicing import cut_group
from agflow.models.splitting import Prefix, Rest
from agflow.models.vit_costs import costs_of
from agflow.models.vit_cuts import drop, freed, resize_heads
from agflow.models.vit_family import STREAM, Branch, Heads, VisionTransformerFamily
from agflow.models.vit_groups import groups_of, placed_groups


class VisionTransformerAdapter(VisionTransformerFamily):
    """Base of the adapters of pre-norm Vision Transformers."""

    # What can be pruned

    def layers(self, model: nn.Module) -> list[ChannelGroup]:
        return groups_of(self, model)

    def weights(self, model: nn.Module, layer: ChannelGroup) -> list[tuple[torch.Tensor, int]]:
        return weights_of(model, self._as_it_is(model, layer))

    def macs(self, model: nn.Module) -> int:
        return costs_of(self, model, self.anatomy(model)).macs()

    def costs(self, model: nn.Module) -> dict[str, Any]:
        return costs_of(self, model, self.anatomy(model)).to_json()

    def output_scales(self, model: nn.Module) -> dict[str, torch.Tensor]:
        scales = {}
        for branch in self.anatomy(model).branches():
            weight_DC = model.get_submodule(branch.reader).weight.detach()
            scales[branch.reader] = (
                weight_DC.new_ones(len(weight_DC))
                if branch.scale is None
                else model.get_submodule(branch.scale).gamma.detach()
            )
        return scales

    # Cuts

    def cut(self, model: nn.Module, layer: ChannelGroup, keep_U: torch.Tensor) -> None:
        if layer.kind == "block":
            drop(self, model, self._branch(model, layer))
            return
        if layer.name == STREAM:
            attentions = self.anatomy(model).attention if self.rigid else ()
        else:
            inside = layer.kind == "head_dim" or (layer.kind == "heads" and self.rigid)
            attentions = (self._branch(model, layer),) if inside else ()
        for branch in attentions:
            if branch is not None:
                freed(self, model, branch)
        cut_group(model, self._as_it_is(model, layer), keep_U)

    def _as_it_is(self, model: nn.Module, layer: ChannelGroup) -> ChannelGroup:
        """The group of that name as the model has it now: other cuts may have moved its units."""
        return next(group for group in placed_groups(self, model) if group.name == layer.name)

    def _branch(self, model: nn.Module, layer: ChannelGroup) -> Branch:
        """The branch that a group is, or lies in."""
        return next(
            branch
            for branch in self.anatomy(model).branches()
            if layer.name
            in (branch.units, *(f"{branch.units}.{of}" for of in ("qk", "v", "branch")))
        )

    # Classes

    def class_count(self, model: nn.Module) -> int:
        last = self._last_linears(model)
        return model.get_submodule(last[0]).out_features if last else 0

    def keep_classes(self, model: nn.Module, keep_K: torch.Tensor) -> None:
        for name in self._last_linears(model):
            put(model, name, keep_outputs(model.get_submodule(name), keep_K))
        self.note_classes(model, len(keep_K))

    def _last_linears(self, model: nn.Module) -> tuple[str, ...]:
        anatomy = self.anatomy(model)
        return anatomy.classifiers and (anatomy.behind or anatomy.classifiers)

    # Image sizes

    @torch.no_grad()
    def set_image_size(self, model: nn.Module, height: int, width: int) -> None:
        """As :meth:`Adapter.set_image_size`; embeddings are interpolated as timm does it.

        That is bicubic and antialiased.
        """
        from timm.layers import resample_abs_pos_embed  # seconds to import

        anatomy = self.anatomy(model)
        patch_height, patch_width = model.get_submodule(anatomy.patch).kernel_size
        if height < 1 or width < 1 or height % patch_height or width % patch_width:
            raise InvalidValueError(
                f"the image size is {height}x{width}, expected multiples of the model's patches of "
                f"{patch_height}x{patch_width} pixels"
            )
        old, new = (
            (h // patch_height, w // patch_width)
            for h, w in (self.input_size(model)[1:], (height, width))
        )
        if anatomy.positions is not None:
            owner, _, leaf = anatomy.positions.rpartition(".")
            positions = model.get_parameter(anatomy.positions)
            placed = resample_abs_pos_embed(
                positions,
                new_size=new,
                old_size=old,
                num_prefix_tokens=positions.shape[1] - old[0] * old[1],
            )
            setattr(
                model.get_submodule(owner),
                leaf,
                nn.Parameter(placed, requires_grad=positions.requires_grad),
            )
        self.note_image_size(model, height, width)

    # Halves

    def split(self, model: nn.Module, blocks: int) -> tuple[Prefix, Rest]:
        self._check_split(model, blocks)
        return Prefix(self, model, blocks), Rest(self, model, blocks)

    def prefix_macs(self, model: nn.Module, blocks: int) -> int:
        self._check_split(model, blocks)
        anatomy = self.anatomy(model)
        return costs_of(
            self,
            model,
            replace(
                anatomy,
                attention=anatomy.attention[:blocks],
                mlp=anatomy.mlp[:blocks],
                after=(),
                classifiers=(),
                behind=(),
            ),
        ).macs()

    def _check_split(self, model: nn.Module, blocks: int) -> None:
        present = len(self.blocks(model))
        if not 0 <= blocks <= present:
            raise InvalidValueError(
                f"a split behind {blocks} blocks was asked for, expected 0 to {present}, the "
                f"blocks that {type(model).__name__} has"
            )

    # Descriptions

    def shapes(self, model: nn.Module) -> dict[str, Any]:
        """Sizes of all branches, for a description.

        0 where a branch was dropped; ``inner`` widths where an attention is a
        :class:`SelfAttention`.
        """
        anatomy = self.anatomy(model)
        attentions = [branch and model.get_submodule(branch.units) for branch in anatomy.attention]
        mlps = [branch and model.get_submodule(branch.units) for branch in anatomy.mlp]
        heads = [
            Heads(0, 1, 0, 0) if module is None else self.heads(module) for module in attentions
        ]
        return {
            "head_dim": max(of.head_dim for of in heads),
            "heads": [of.count for of in heads],
            "inner": [
                None if module is None or self.self_attention(module) is None else [of.qk, of.v]
                for module, of in zip(attentions, heads, strict=True)
            ],
            "mlp": [0 if mlp is None else self.hidden(mlp).channels(mlp) for mlp in mlps],
        }

    def reshape(self, model: nn.Module, shapes: dict[str, Any]) -> None:
        """Give the branches of a new model the sizes of :meth:`shapes`; its stream has its own."""
        anatomy, head_dim = self.anatomy(model), shapes["head_dim"]
        for attention, mlp, count, inner, hidden in zip(
            anatomy.attention,
            anatomy.mlp,
            shapes["heads"],
            shapes["inner"],
            shapes["mlp"],
            strict=True,
        ):
            if count:
                resize_heads(
                    self,
                    model,
                    attention,
                    Heads(count, head_dim, *(inner or (head_dim, head_dim))),
                    inner is not None,
                )
            if hidden:
                self.hidden(model.get_submodule(mlp.units)).resize(
                    model.get_submodule(mlp.units), hidden
                )
            for branch, left in ((attention, count), (mlp, hidden)):
                if not left:
                    drop(self, model, branch)
