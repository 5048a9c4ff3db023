"""The groups of a Vision Transformer: stream, heads, channels in them, MLPs and branches."""

# torch types every submodule as `Tensor | Module`; the family knows what its branches name.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import nn

from agflow.models.channel_group import (
    CONSUMER,
    PRODUCER,
    THROUGH,
    Attribute,
    ChannelGroup,
    Member,
    Run,
    Tap,
)
from agflow.models.self_attention import SelfAttention
from agflow.models.vit_costs import costs_of
from agflow.models.vit_family import STREAM, Anatomy, Branch, Heads, VisionTransformerFamily


def groups_of(family: VisionTransformerFamily, model: nn.Module) -> list[ChannelGroup]:
    """Every group in forward order, with what a unit of it costs."""
    costs = costs_of(family, model, family.anatomy(model))
    found = []
    for group in placed_groups(family, model):
        macs, params = costs.of_unit(group.name, group.parts)
        found.append(replace(group, unit_macs=macs, unit_params=params))
    return found


def placed_groups(family: VisionTransformerFamily, model: nn.Module) -> Iterator[ChannelGroup]:
    """Every group in forward order, at no costs: where its units lie and what reads them."""
    anatomy = family.anatomy(model)
    dim = model.get_submodule(anatomy.patch).out_channels
    if anatomy.classifiers:  # else the channels of the stream are what the model puts out
        yield _stream(family, model, anatomy, dim)
    for attention, mlp in zip(anatomy.attention, anatomy.mlp, strict=True):
        if attention is not None:
            yield from _AttentionParts.of(family, model, attention).groups()
            yield _branch(attention, dim)
        if mlp is not None:
            module = model.get_submodule(mlp.units)
            units = family.hidden(module)
            yield _group(
                mlp.units,
                "mlp",
                units.channels(module),
                reader=mlp.reader,
                members=units.members(mlp.units, module),
            )
            yield _branch(mlp, dim)


def _group(name: str, kind: str, units: int, unit_width: int = 1, **rest) -> ChannelGroup:
    return ChannelGroup(name, kind, units, unit_width, 0, 0, rest.pop("reader", ""), **rest)


def _branch(branch: Branch, dim: int) -> ChannelGroup:
    """A residual branch, one unit that is as wide as the stream where it enters it."""
    return _group(
        f"{branch.units}.branch",
        "block",
        1,
        dim,
        taps=(Tap(branch.reader, "output"),),
        rounds=False,
        may_vanish=True,
        members=(Member(f"{branch.reader}.weight", 0, PRODUCER, (Run(0, dim),)),),
    )


def _stream(
    family: VisionTransformerFamily, model: nn.Module, anatomy: Anatomy, dim: int
) -> ChannelGroup:
    """The channels of the residual stream, seen by all that reads it."""
    branches = list(anatomy.branches())
    written = [anatomy.patch, *(branch.reader for branch in branches)]
    norms = [
        *(name for name, _ in (*anatomy.before, *anatomy.after)),
        *(branch.norm for branch in branches),
    ]
    beside = [f"{name}.{leaf}" for name in norms for leaf in ("weight", "bias")]
    beside += [f"{name}.bias" for name in written]
    beside += [f"{branch.scale}.gamma" for branch in branches if branch.scale is not None]
    return _group(
        STREAM,
        "embed",
        dim,
        taps=tuple(map(Tap, anatomy.stream_readers())),
        members=(
            *(Member(f"{name}.weight", 0, PRODUCER) for name in written),
            *(Member(name, -1, CONSUMER) for name in _reading(family, model, anatomy)),
            *(
                Member(name, -1, THROUGH)
                for name in (*anatomy.embeddings, *_present(model, beside))
            ),
        ),
        attributes=tuple(Attribute("", name) for name in family.counts_stream),
    )


def _reading(family: VisionTransformerFamily, model: nn.Module, anatomy: Anatomy) -> Iterator[str]:
    """Names of the weights that read the stream, behind a norm or not."""
    for branch in anatomy.branches():
        module = model.get_submodule(branch.units)
        if branch in anatomy.attention:
            for name in family.projections(module):
                yield f"{branch.units}.{family.parameters_of(module, name)[0]}"
        else:
            for name in family.hidden(module).writers:
                yield f"{branch.units}.{name}.weight"
    yield from (f"{name}.weight" for name in anatomy.classifiers)


def _present(model: nn.Module, names: list[str]) -> list[str]:
    """Those of the parameters that are not None."""
    return [
        name
        for module, _, leaf in (name.rpartition(".") for name in names)
        if getattr(model.get_submodule(module), leaf) is not None
        for name in [f"{module}.{leaf}"]
    ]


@dataclass(frozen=True)
class _AttentionParts:
    """The groups of one attention, and where queries, keys and values lie.

    Attributes
    ----------
    branch, heads : of the attention
    normed : whether queries and keys are
    projections : weight and bias of queries, of keys and of values, each with its first row
    counts : attributes that follow the heads, the queries' and the values' channels
    """

    branch: Branch
    heads: Heads
    normed: bool
    query: str
    projections: tuple[tuple[str, str | None, int], ...]
    counts: tuple[tuple[Attribute, ...], ...]

    @classmethod
    def of(
        cls, family: VisionTransformerFamily, model: nn.Module, branch: Branch
    ) -> _AttentionParts:
        module = model.get_submodule(branch.units)
        heads, names = family.heads(module), family.projections(module)
        of_names = [
            tuple(part and f"{branch.units}.{part}" for part in family.parameters_of(module, name))
            for name in names
        ]
        wide = heads.count * heads.qk
        places = (
            [(*of_names[0], row) for row in (0, wide, 2 * wide)]
            if len(names) == 1
            else [(*of_name, 0) for of_name in of_names]
        )
        return cls(
            branch,
            heads,
            family.has_norm(module),
            f"{branch.units}.{names[0]}",
            tuple(places),
            _counts(family, branch.units, module),
        )

    def groups(self) -> Iterator[ChannelGroup]:
        """Pairs of query and key (where no norm is between them), heads, channels of values."""
        name, reader, heads = self.branch.units, self.branch.reader, self.heads
        qk, v = heads.count * heads.qk, heads.count * heads.v
        of_heads, of_queries, of_values = self.counts
        read = f"{reader}.weight"
        if not self.normed:
            yield _group(
                f"{name}.qk",
                "head_dim",
                qk,
                parts=heads.count,
                taps=(Tap(self.query, "output", 0, qk),),
                members=(*self._rows(0, PRODUCER), *self._rows(1, CONSUMER)),
                attributes=of_queries,
            )
        yield _group(
            name,
            "heads",
            heads.count,
            heads.v,
            reader=reader,
            rounds=False,
            members=(
                *(
                    member
                    for part, width in enumerate((heads.qk, heads.qk, heads.v))
                    for member in self._rows(part, PRODUCER, width)
                ),
                Member(read, 1, CONSUMER, (Run(0, heads.v),)),
            ),
            attributes=of_heads,
        )
        yield _group(
            f"{name}.v",
            "head_dim",
            v,
            reader=reader,
            parts=heads.count,
            members=(*self._rows(2, PRODUCER), Member(read, 1, CONSUMER)),
            attributes=of_values,
        )

    def _rows(self, part: int, role: str, width: int = 1) -> Iterator[Member]:
        """Weight and bias of queries, keys or values."""
        weight, bias, first = self.projections[part]
        yield Member(weight, 0, role, (Run(first, width),))
        if bias is not None:
            yield Member(bias, 0, THROUGH, (Run(first, width),))


def _counts(
    family: VisionTransformerFamily, name: str, attention: nn.Module
) -> tuple[tuple[Attribute, ...], ...]:
    """What follows the heads, the queries' and the values' channels.

    The family's own attention has one width for all, and none of its numbers follows one of them.
    """
    for below, module in attention.named_modules():
        if type(module) is SelfAttention:
            place = f"{name}.{below}".rstrip(".")
            return tuple(
                (Attribute(place, count),) for count in ("num_heads", "qk_width", "v_width")
            )
    names = (f"{name}.{count}".rpartition(".") for count in family.counts_heads(attention))
    return tuple(Attribute(module, count) for module, _, count in names), (), ()
