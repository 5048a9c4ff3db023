"""What a family of Vision Transformers says of its models: their parts and how they count.

Shape suffixes: B images, T tokens, D channels of the residual stream.
"""

# torch types every submodule as `Tensor | Module`; the adapter knows what its branches name.
# pyright: reportArgumentType=false, reportReturnType=false

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from agflow.models.adapter import Adapter
from agflow.models.branches import Chain
from agflow.models.linear_units import LinearUnits
from agflow.models.self_attention import SelfAttention

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


class VisionTransformerFamily(Adapter):
    """What the adapter of a family of pre-norm Vision Transformers has to say.

    :class:`agflow.models.vision_transformer.VisionTransformerAdapter` does all else by it.

    Attributes
    ----------
    rigid : whether the family's own attention cannot be cut, nor be called with the stream alone
    counts_stream : names below a model of its numbers of stream channels
    """

    rigid: ClassVar[bool] = False
    counts_stream: ClassVar[tuple[str, ...]] = ()

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

    def counts_heads(self, attention: nn.Module) -> tuple[str, ...]:
        """Names below the family's own attention of its numbers that its heads are proportional to.

        Not asked where ``rigid``.
        """
        return ()

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

    def parameters_of(self, attention: nn.Module, name: str) -> tuple[str, str | None]:
        """Names below the attention of the weight of such a layer, and of its bias, if any."""
        biased = self.projection(attention, name).bias is not None
        return f"{name}.weight", f"{name}.bias" if biased else None
