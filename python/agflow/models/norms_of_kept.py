"""Norms that run on the kept units alone, in a model that is otherwise whole.

Shape suffixes: U kept units, S positions along an axis that stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from agflow.models.channel_group import ChannelGroup, Norm
from agflow.models.copying import copy_of
from agflow.models.slicing import Cut, cut_groups


def norms_of_kept(model: nn.Module, cuts: Sequence[Cut]) -> Iterator[RemovableHandle]:
    """Hook the norms of groups: on the units that cuts leave they give what the cut model's do.

    Everywhere else they give zeros. Norms that are no modules are for
    :mod:`agflow.models.tracing.by_graph`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.channel_group import ChannelGroup, Member, Norm, Run
    >>> from agflow.models.norms_of_kept import norms_of_kept
    >>> model = nn.Sequential(nn.LayerNorm(4))
    >>> group = ChannelGroup(
    ...     "stream", "stage", 4, 1, 0, 0, "",
    ...     members=(Member("0.weight", 0, "through"), Member("0.bias", 0, "through")),
    ...     norms=(Norm("0", 1, (Run(0),), ()),),
    ... )
    >>> (hook,) = norms_of_kept(model, [(group, torch.tensor([0, 3]))])
    >>> model(torch.tensor([[1.0, 5, 7, 3]])).round().tolist()
    [[-1.0, 0.0, 0.0, 1.0]]
    """
    norms: dict[str, list[tuple[ChannelGroup, Norm, torch.Tensor]]] = defaultdict(list)
    for group, keep_U in cuts:
        for norm in group.norms:
            if norm.module is not None:
                norms[norm.module].append((group, norm, keep_U))
    for name, held in norms.items():
        module = model.get_submodule(name)
        yield module.register_forward_hook(_OfKept(_cut_alone(module, name, cuts), held))


class _OfKept:
    """Replaces what a norm gives by what its cut copy gives."""

    def __init__(self, cut: nn.Module, held: Sequence[tuple[ChannelGroup, Norm, torch.Tensor]]):
        self._cut, self._held = cut, held
        self._axis = held[0][1].axis

    def __call__(self, _: nn.Module, inputs: tuple, whole: torch.Tensor) -> torch.Tensor:
        x, axis = inputs[0], self._axis
        stays_S = torch.ones(x.shape[axis], dtype=torch.bool)
        for group, norm, keep_U in self._held:
            kept = norm.kept(len(stays_S), group.units, keep_U.cpu())
            stays_S &= torch.zeros_like(stays_S).index_fill_(0, kept, True)
        kept = stays_S.nonzero().flatten().to(x.device)
        return torch.zeros_like(whole).index_copy_(
            axis, kept, self._cut(x.index_select(axis, kept)).to(whole.dtype)
        )


def _cut_alone(module: nn.Module, name: str, cuts: Sequence[Cut]) -> nn.Module:
    """A copy of one module with all that the cuts take off it."""
    copy, before = copy_of(module), f"{name}."
    own: list[Cut] = []
    for group, keep_U in cuts:
        members, scaled = (
            tuple(
                replace(member, name=member.name.removeprefix(before))
                for member in of
                if member.name.startswith(before)
            )
            for of in (group.members, group.scaled)
        )
        attributes = tuple(
            replace(attribute, module="")
            for attribute in group.attributes
            if attribute.module == name
        )
        if members:
            inside = replace(group, members=members, attributes=attributes, scaled=scaled)
            own.append((inside, keep_U))
    cut_groups(copy, own)
    return copy
