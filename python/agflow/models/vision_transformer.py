"""The base of the adapters of all Vision Transformers: groups of units, cuts and costs.

An adapter of a family says where the parts of a model are (:class:`Anatomy`) and how its own
modules count their heads; all else is here.

Shape suffixes: B images, T tokens, D channels of the residual stream, C channels of Y, U kept
units.
"""
# Long because: it holds one class, which is long.

# torch types every submodule as `Tensor | Module`; the adapter knows what its branches name.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import nn

from agflow.errors import InvalidValueError
from agflow.models.adapter import Adapter
from agflow.models.branches import Branches, Chain, chains_of
from agflow.models.channel_group import ChannelGroup, Tap, channels_of
from agflow.models.costs import Costs, Product, Size, size
from agflow.models.linear_units import LinearUnits, keep_inputs, keep_outputs, put, resized
from agflow.models.self_attention import SelfAttention
from agflow.models.splitting import Prefix, Rest

Refusals = Callable[[nn.Module], Iterator[str]]
"""Yields every reason against a module."""

STREAM = "embed"  # the name of the layer that the channels of the residual stream are


@dataclass(frozen=True)
class Branch:
    """A residual branch that is left.

    Attributes
    ----------
    block : name of its block
    chain : its modules below the block
    units : name of the module that holds its heads or hidden channels
    norm, reader : names of the norm that reads the stream for it, and of the last linear layer
    scale : name of its LayerScale, if any
    """

    block: str
    chain: Chain
    units: str
    norm: str
    reader: str
    scale: str | None = None


@dataclass(frozen=True)
class Anatomy:
    """Where a Vision Transformer has what, by the names of modules and parameters.

    Attributes
    ----------
    patches, tokens : per image; tokens are patches and class, distillation and register tokens
    patch : the convolution
    embeddings : parameters [..., D]
    positions : the one of them that holds what is added to each place, [1, T, D] or without prefix
        tokens; None without any
    attention, mlp : by block, the branch of that kind; None where it was dropped
    before, after : norms before the blocks and behind them, each with its rows per image
    classifiers : linear layers that read the last stream
    behind : linear layers that read what these give
    """

    patches: int
    tokens: int
    patch: str
    embeddings: tuple[str, ...]
    positions: str | None
    attention: tuple[Branch | None, ...]
    mlp: tuple[Branch | None, ...]
    before: tuple[tuple[str, int], ...]
    after: tuple[tuple[str, int], ...]
    classifiers: tuple[str, ...]
    behind: tuple[str, ...] = ()

    def branches(self) -> Iterator[Branch]:
        """Those that are left, in forward order."""
        return (
            branch
            for pair in zip(self.attention, self.mlp, strict=True)
            for branch in pair
            if branch is not None
        )

    def stream_readers(self) -> tuple[str, ...]:
        """The modules that read the stream, in forward order: norms, else classifiers."""
        return (
            *(name for name, _ in self.before),
            *(branch.norm for branch in self.branches()),
            *((name for name, _ in self.after) if self.after else self.classifiers),
        )


class Heads(NamedTuple):
    """Sizes of an attention.

    Attributes
    ----------
    count : heads
    head_dim : width of a head of the dense model
    qk, v : widths of a query or key, and of a value
    """

    count: int  # pyright: ignore[reportIncompatibleMethodOverride] (hides the count() of tuples)
    head_dim: int
    qk: int
    v: int


# Long because: the five groups of units share one view of the model's parts.
class VisionTransformerAdapter(Adapter):
    """Base of the adapters of pre-norm Vision Transformers."""

    rigid: bool = False
    """Whether the family's own attention cannot be cut, nor be called with the stream alone."""

    @abstractmethod
    def anatomy(self, model: nn.Module) -> Anatomy:
        """Where the parts of the model are."""

    @abstractmethod
    def chains(self, model: nn.Module) -> tuple[Chain, Chain]:
        """The branches of a dense block, attention and MLP."""

    @abstractmethod
    def hidden(self, mlp: nn.Module) -> LinearUnits:
        """The linear layers between which an MLP has its hidden channels."""

    @abstractmethod
    def projections(self, attention: nn.Module) -> tuple[str, ...]:
        """Names of the linear layers of queries, keys and values: one for all, or three."""

    @abstractmethod
    def own_heads(self, attention: nn.Module) -> Heads:
        """Sizes of the family's own attention."""

    def count_heads(self, attention: nn.Module, heads: Heads) -> None:
        """Set the sizes of the family's own attention to those of its new linear layers.

        Not called where ``rigid``.
        """
        raise NotImplementedError(type(self).__name__)

    @abstractmethod
    def free(self, attention: nn.Module) -> nn.Module:
        """The attention, its heads computed by a :class:`SelfAttention` of the same weights."""

    @abstractmethod
    def blocks(self, model: nn.Module) -> nn.Sequential | nn.ModuleList:
        """The blocks, each of which takes the stream alone and returns it."""

    @abstractmethod
    def embed(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """The tokens [B, T, D] before the first block, of images [B, C, H, W]."""

    @abstractmethod
    def classify(self, model: nn.Module, x_BTD: torch.Tensor) -> torch.Tensor:
        """The logits [B, K] of the stream behind the last block."""

    @abstractmethod
    def note_image_size(self, model: nn.Module, height: int, width: int) -> None:
        """Set the size of the model's images, which its position embeddings fit already."""

    @abstractmethod
    def note_classes(self, model: nn.Module, count: int) -> None:
        """Set how many classes the model has to what its classifier still has."""

    @abstractmethod
    def set_stream(self, model: nn.Module, channels: int) -> None:
        """Set how many channels the model's stream has."""

    def self_attention(self, attention: nn.Module) -> SelfAttention | None:
        """The :class:`SelfAttention` that an attention is or holds; None for the family's own."""
        return next(
            (module for module in attention.modules() if type(module) is SelfAttention), None
        )

    def projection(self, attention: nn.Module, name: str) -> nn.Linear:
        """The layer of that name, to be read only."""
        return attention.get_submodule(name)

    def has_norm(self, attention: nn.Module) -> bool:
        """Whether queries and keys are normalised, so that they cannot lose channels."""
        return isinstance(getattr(attention, "q_norm", None), nn.LayerNorm)

    def heads(self, attention: nn.Module) -> Heads:
        """Sizes of an attention, whether the family's own or a :class:`SelfAttention`."""
        free = self.self_attention(attention)
        return (
            self.own_heads(attention)
            if free is None
            else Heads(free.num_heads, free.head_dim, free.qk_width, free.v_width)
        )

    # Classes

    def class_count(self, model: nn.Module) -> int:
        return model.get_submodule(self._last_linears(model)[0]).out_features

    def keep_classes(self, model: nn.Module, keep_K: torch.Tensor) -> None:
        for name in self._last_linears(model):
            put(model, name, keep_outputs(model.get_submodule(name), keep_K))
        self.note_classes(model, len(keep_K))

    def _last_linears(self, model: nn.Module) -> tuple[str, ...]:
        anatomy = self.anatomy(model)
        return anatomy.behind or anatomy.classifiers

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
        return self._costs(
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

    # Layers

    def layers(self, model: nn.Module) -> list[ChannelGroup]:
        anatomy = self.anatomy(model)
        costs = self._costs(model, anatomy)
        dim = costs.sizes[STREAM]

        def layer(
            name: str,
            group: str,
            units: int,
            unit_width: int,
            reader: str = "",
            parts: int = 1,
            *taps: Tap,
        ) -> ChannelGroup:
            rounds, may_vanish = group not in ("heads", "block"), group == "block"
            return ChannelGroup(
                name,
                group,
                units,
                unit_width,
                *costs.of_unit(name, parts),
                reader,
                parts,
                taps,
                rounds,
                may_vanish,
            )

        def branch(of: Branch) -> ChannelGroup:
            return layer(f"{of.units}.branch", "block", 1, dim, "", 1, Tap(of.reader, "output"))

        found = [layer(STREAM, "embed", dim, 1, "", 1, *map(Tap, anatomy.stream_readers()))]
        for attention, mlp in zip(anatomy.attention, anatomy.mlp, strict=True):
            if attention is not None:
                name, module = attention.units, model.get_submodule(attention.units)
                heads, reader = self.heads(module), attention.reader
                qk, v = heads.count * heads.qk, heads.count * heads.v
                if not self.has_norm(module):
                    queries = Tap(f"{name}.{self.projections(module)[0]}", "output", 0, qk)
                    found.append(layer(f"{name}.qk", "head_dim", qk, 1, "", heads.count, queries))
                found.append(layer(name, "heads", heads.count, heads.v, reader))
                found.append(layer(f"{name}.v", "head_dim", v, 1, reader, heads.count))
                found.append(branch(attention))
            if mlp is not None:
                module = model.get_submodule(mlp.units)
                channels = self.hidden(module).channels(module)
                found += [layer(mlp.units, "mlp", channels, 1, mlp.reader), branch(mlp)]
        return found

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

    def weights(self, model: nn.Module, layer: ChannelGroup) -> list[tuple[torch.Tensor, int]]:
        """As :meth:`Adapter.weights`. The keys' weights count as what reads the queries.

        The heads of an attention whose queries are not as wide as its values have the values'
        weights only.
        """
        if layer.kind == "embed":
            return self._stream_weights(model)
        branch = self._branch(model, layer)
        reader, module = (
            model.get_submodule(branch.reader).weight,
            model.get_submodule(branch.units),
        )
        if layer.kind == "block":
            return [(reader, 0)]
        if layer.kind == "mlp":
            return self.hidden(module).weights(module)
        heads = self.heads(module)
        q, k, v = _parts(
            [self.projection(module, name).weight for name in self.projections(module)], heads
        )
        if layer.kind == "heads":
            return [
                *((part, 0) for part in ((q, k, v) if heads.qk == heads.v else (v,))),
                (reader, 1),
            ]
        return [(v, 0), (reader, 1)] if layer.reader else [(q, 0), (k.T, 1)]

    def _stream_weights(self, model: nn.Module) -> list[tuple[torch.Tensor, int]]:
        """The weights of all that writes the stream and of all that reads it, by a norm or not."""
        anatomy = self.anatomy(model)
        written = [
            model.get_submodule(anatomy.patch).weight.flatten(1),
            *(model.get_submodule(branch.reader).weight for branch in anatomy.branches()),
        ]
        read = [
            linear.weight
            for branch in anatomy.branches()
            for _, linear in self._entries(model, branch)
        ]
        read += [model.get_submodule(name).weight for name in anatomy.classifiers]
        return [*((weight, 0) for weight in written), *((weight, 1) for weight in read)]

    def _entries(self, model: nn.Module, branch: Branch) -> list[tuple[str, nn.Linear]]:
        """The linear layers that a branch begins with, by name."""
        module = model.get_submodule(branch.units)
        if branch in self.anatomy(model).attention:
            return [
                (f"{branch.units}.{name}", self.projection(module, name))
                for name in self.projections(module)
            ]
        return [
            (f"{branch.units}.{name}", module.get_submodule(name))
            for name in self.hidden(module).writers
        ]

    def _branch(self, model: nn.Module, layer: ChannelGroup) -> Branch:
        units = layer.name.rpartition(".")[0] if layer.kind in ("head_dim", "block") else layer.name
        return next(branch for branch in self.anatomy(model).branches() if branch.units == units)

    # Cuts

    def cut(self, model: nn.Module, layer: ChannelGroup, keep_U: torch.Tensor) -> None:
        if layer.kind == "embed":
            self._cut_stream(model, keep_U)
            return
        branch = self._branch(model, layer)
        if layer.kind == "block":
            self._drop(model, branch)
        elif layer.kind == "mlp":
            module = model.get_submodule(branch.units)
            self.hidden(module).cut(module, keep_U)
        else:
            self._cut_heads(model, branch, layer, keep_U)

    def _drop(self, model: nn.Module, branch: Branch) -> None:
        block = model.get_submodule(branch.block)
        if self.rigid:
            for attention in self.anatomy(model).attention:
                if attention is not None and attention.block == branch.block:
                    self._freed(model, attention)
        put(
            model,
            branch.block,
            Branches(
                block,
                (chain for chain in chains_of(block, self.chains(model)) if chain != branch.chain),
            ),
        )

    def _freed(self, model: nn.Module, branch: Branch) -> nn.Module:
        """The attention, with a :class:`SelfAttention` in it."""
        if self.self_attention(model.get_submodule(branch.units)) is None:
            put(model, branch.units, self.free(model.get_submodule(branch.units)))
        return model.get_submodule(branch.units)

    def _cut_heads(
        self, model: nn.Module, branch: Branch, layer: ChannelGroup, keep_U: torch.Tensor
    ) -> None:
        within = layer.kind == "head_dim"
        module = (
            self._freed(model, branch)
            if within or self.rigid
            else model.get_submodule(branch.units)
        )
        heads = self.heads(module)
        keep_qk, keep_v = torch.arange(heads.count * heads.qk), torch.arange(heads.count * heads.v)
        if not within:
            left, keep_qk, keep_v = (
                heads._replace(count=len(keep_U)),
                channels_of(keep_U, heads.qk),
                channels_of(keep_U, heads.v),
            )
        elif layer.reader:
            left, keep_v = heads._replace(v=len(keep_U) // heads.count), keep_U
        else:
            left, keep_qk = heads._replace(qk=len(keep_U) // heads.count), keep_U
        rows = [keep_qk, keep_qk, keep_v]
        if len(self.projections(module)) == 1:
            rows = [
                torch.cat(
                    [keep_qk, heads.count * heads.qk + keep_qk, 2 * heads.count * heads.qk + keep_v]
                )
            ]
        for name, keep in zip(self.projections(module), rows, strict=True):
            put(module, name, keep_outputs(module.get_submodule(name), keep))
        put(model, branch.reader, keep_inputs(model.get_submodule(branch.reader), keep_v))
        self._set_heads(module, left)

    def _set_heads(self, attention: nn.Module, heads: Heads) -> None:
        free = self.self_attention(attention)
        if free is None:
            self.count_heads(attention, heads)
        else:
            free.num_heads, free.head_dim, free.qk_width, free.v_width = heads

    @torch.no_grad()
    def _cut_stream(self, model: nn.Module, keep_D: torch.Tensor) -> None:
        anatomy = self.anatomy(model)
        for name in (f"{anatomy.patch}.weight", f"{anatomy.patch}.bias"):
            _keep(model, name, keep_D, 0)
        model.get_submodule(anatomy.patch).out_channels = len(keep_D)
        for name in anatomy.embeddings:
            _keep(model, name, keep_D, -1)
        for branch in anatomy.branches():
            if self.rigid and branch in anatomy.attention:
                self._freed(model, branch)
            for name, linear in self._entries(model, branch):
                put(model, name, keep_inputs(linear, keep_D))
            put(model, branch.reader, keep_outputs(model.get_submodule(branch.reader), keep_D))
            if branch.scale is not None:
                _keep(model, f"{branch.scale}.gamma", keep_D, 0)
        for name in (
            *(name for name, _ in (*anatomy.before, *anatomy.after)),
            *(branch.norm for branch in anatomy.branches()),
        ):
            _keep(model, f"{name}.weight", keep_D, 0)
            _keep(model, f"{name}.bias", keep_D, 0)
            model.get_submodule(name).normalized_shape = (len(keep_D),)
        for name in anatomy.classifiers:
            put(model, name, keep_inputs(model.get_submodule(name), keep_D))
        self.set_stream(model, len(keep_D))

    # Costs

    def macs(self, model: nn.Module) -> int:
        return self._costs(model, self.anatomy(model)).macs()

    def costs(self, model: nn.Module) -> dict[str, Any]:
        return self._costs(model, self.anatomy(model)).to_json()

    def _costs(self, model: nn.Module, anatomy: Anatomy) -> Costs:
        stream, patch = size(STREAM), model.get_submodule(anatomy.patch)
        sizes = {STREAM: patch.out_channels}
        products = [
            _linear(anatomy.patch, patch, anatomy.patches, size(patch.weight[0].numel()), stream)
        ]
        products += [
            Product(
                "parameters",
                name,
                size((model.get_parameter(name).numel() // patch.out_channels, STREAM)),
            )
            for name in anatomy.embeddings
        ]
        products += [Product("norm", name, stream, rows) for name, rows in anatomy.before]
        for branch in anatomy.branches():
            of_branch = f"{branch.units}.branch"
            sizes[of_branch] = 1
            inside = self._attention_costs if branch in anatomy.attention else self._mlp_costs
            made = [
                Product("norm", branch.norm, stream, anatomy.tokens),
                *inside(model, branch, anatomy.tokens, sizes),
            ]
            if branch.scale is not None:
                made.append(Product("parameters", f"{branch.scale}.gamma", stream))
            products += [replace(product, times=(of_branch,)) for product in made]
        products += [Product("norm", name, stream, rows) for name, rows in anatomy.after]
        for name in anatomy.classifiers:
            linear = model.get_submodule(name)
            products.append(_linear(name, linear, 1, stream, size(linear.out_features)))
        for name in anatomy.behind:
            linear = model.get_submodule(name)
            products.append(
                _linear(name, linear, 1, size(linear.in_features), size(linear.out_features))
            )
        return Costs(sizes, tuple(products))

    def _attention_costs(
        self, model: nn.Module, branch: Branch, tokens: int, sizes: dict[str, int]
    ) -> list[Product]:
        module, name = model.get_submodule(branch.units), branch.units
        heads = self.heads(module)
        sizes.update({name: heads.count, f"{name}.qk": heads.qk, f"{name}.v": heads.v})
        queries, values = (1, name, f"{name}.qk"), (1, name, f"{name}.v")
        outputs = (
            [size(queries), size(queries), size(values)]
            if len(self.projections(module)) == 3
            else [size((2, *queries[1:]), values)]
        )
        made = [
            _linear(entry, linear, tokens, size(STREAM), output)
            for (entry, linear), output in zip(self._entries(model, branch), outputs, strict=True)
        ]
        if self.has_norm(module):
            made += [
                Product("norm", f"{name}.{norm}", size(f"{name}.qk"), tokens * heads.count)
                for norm in ("q_norm", "k_norm")
            ]
        made.append(Product("attention", name, size(values), tokens, size(queries), size(name)))
        return [
            *made,
            _linear(
                branch.reader,
                model.get_submodule(branch.reader),
                tokens,
                size(values),
                size(STREAM),
            ),
        ]

    def _mlp_costs(
        self, model: nn.Module, branch: Branch, tokens: int, sizes: dict[str, int]
    ) -> list[Product]:
        module, name = model.get_submodule(branch.units), branch.units
        units = self.hidden(module)
        sizes[name] = units.channels(module)
        made = [
            _linear(entry, linear, tokens, size(STREAM), size((rows, name)))
            for (entry, linear), rows in zip(
                self._entries(model, branch), units.writers.values(), strict=True
            )
        ]
        made.append(Product("pointwise", f"{name}.act", size(name), tokens))
        return [
            *made,
            _linear(
                branch.reader, model.get_submodule(branch.reader), tokens, size(name), size(STREAM)
            ),
        ]

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
                self._resize_heads(
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
                    self._drop(model, branch)

    def _resize_heads(self, model: nn.Module, branch: Branch, heads: Heads, free: bool) -> None:
        module = model.get_submodule(branch.units)
        if not self.rigid:
            self.count_heads(module, heads)
        elif not free:  # made with the right heads, or not at all
            return
        if free:
            module = self._freed(model, branch)
        widths = (
            [heads.qk, heads.qk, heads.v]
            if len(self.projections(module)) == 3
            else [2 * heads.qk + heads.v]
        )
        for (name, linear), width in zip(self._entries(model, branch), widths, strict=True):
            put(model, name, resized(linear, linear.in_features, heads.count * width))
        reader = model.get_submodule(branch.reader)
        put(model, branch.reader, resized(reader, heads.count * heads.v, reader.out_features))
        self._set_heads(module, heads)


def block_refusals(
    block: nn.Module,
    whole: tuple[Chain, Chain],
    norm_kind: type[nn.Module],
    norm_name: str,
    attention_refusals: Refusals,
    mlp_refusals: Refusals,
) -> Iterator[str]:
    """Yield every reason against a block of a known class.

    Its branches begin with a norm, and what follows the norm holds the units.

    Parameters
    ----------
    whole : the branches of a dense block, attention and MLP
    norm_kind, norm_name : the class that the norms must have, and what messages call it
    attention_refusals, mlp_refusals : reasons against the modules that hold the units
    """
    left = chains_of(block, whole)
    for chain, refusals in zip(whole, (attention_refusals, mlp_refusals), strict=True):
        if chain in left:
            yield from refusals(getattr(block, chain[1]))
    for norm, *_ in left:
        if type(getattr(block, norm)) is not norm_kind:
            yield (
                f"a norm of class {type(getattr(block, norm)).__name__} is not supported, expected "
                f"{norm_name}"
            )


def _linear(name: str, layer: nn.Module, rows: int, inputs: Size, outputs: Size) -> Product:
    return Product("linear", name, outputs, rows, inputs, bias=layer.bias is not None)


def _parts(weights: list[torch.Tensor], heads: Heads) -> tuple[torch.Tensor, ...]:
    """The rows of queries, keys and values."""
    if len(weights) == 3:
        return tuple(weights)
    return weights[0].split([heads.count * heads.qk] * 2 + [heads.count * heads.v])


def _keep(model: nn.Module, name: str, keep: torch.Tensor, axis: int) -> None:
    """Keep a part of a parameter, in place of the whole; one that is None stays None."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    parameter = getattr(module, leaf)
    if parameter is not None:
        setattr(
            module,
            leaf,
            nn.Parameter(
                parameter.index_select(axis, keep.to(parameter.device)),
                requires_grad=parameter.requires_grad,
            ),
        )
