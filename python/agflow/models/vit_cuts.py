"""What a Vision Transformer's attentions and blocks become before they are cut."""

# torch types every submodule as `Tensor | Module`; the family knows what its branches name.
# pyright: reportArgumentType=false, reportReturnType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from torch import nn

from agflow._utils.modules import put
from agflow.models.branches import Branches, chains_of
from agflow.models.linear_units import resized
from agflow.models.vit_family import Branch, Heads, VisionTransformerFamily


def drop(family: VisionTransformerFamily, model: nn.Module, branch: Branch) -> None:
    """Take a branch out of its block, in place."""
    block = model.get_submodule(branch.block)
    if family.rigid:
        for attention in family.anatomy(model).attention:
            if attention is not None and attention.block == branch.block:
                freed(family, model, attention)
    put(
        model,
        branch.block,
        Branches(
            block,
            (chain for chain in chains_of(block, family.chains(model)) if chain != branch.chain),
        ),
    )


def freed(family: VisionTransformerFamily, model: nn.Module, branch: Branch) -> nn.Module:
    """The attention, with a :class:`SelfAttention` in it."""
    if family.self_attention(model.get_submodule(branch.units)) is None:
        put(model, branch.units, family.free(model.get_submodule(branch.units)))
    return model.get_submodule(branch.units)


def resize_heads(
    family: VisionTransformerFamily, model: nn.Module, branch: Branch, heads: Heads, free: bool
) -> None:
    """Give an attention of a new model other sizes; the weights are not set.

    Parameters
    ----------
    free : whether it is a :class:`SelfAttention` in the model that has these sizes
    """
    module = model.get_submodule(branch.units)
    if not family.rigid:
        family.count_heads(module, heads)
    elif not free:  # made with the right heads, or not at all
        return
    if free:
        module = freed(family, model, branch)
    widths = (
        [heads.qk, heads.qk, heads.v]
        if len(family.projections(module)) == 3
        else [2 * heads.qk + heads.v]
    )
    for name, width in zip(family.projections(module), widths, strict=True):
        linear = module.get_submodule(name)
        put(module, name, resized(linear, linear.in_features, heads.count * width))
    reader = model.get_submodule(branch.reader)
    put(model, branch.reader, resized(reader, heads.count * heads.v, reader.out_features))
    _set_heads(family, module, heads)


def _set_heads(family: VisionTransformerFamily, attention: nn.Module, heads: Heads) -> None:
    free = family.self_attention(attention)
    if free is None:
        family.count_heads(attention, heads)
    else:
        free.num_heads, free.head_dim, free.qk_width, free.v_width = heads
