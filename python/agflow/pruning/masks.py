"""Mask units in the full-size model: the reference that a pruned model must agree with.

What reads the units, by a group's members, has zeros there while masked, and where Y is seen it is
zero: the one makes a cut's reference of groups that only their members describe, the other of those
of an adapter that only says where Y is.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from agflow._utils.hooks import temporary_hooks
from agflow.models import Adapter, ChannelGroup, Tap
from agflow.models.channel_group import CONSUMER, channels_of
from agflow.models.copying import watched
from agflow.models.norms_of_kept import norms_of_kept
from agflow.models.slicing import Cut, tensor_of
from agflow.models.tracing.by_graph import are_in_code, run_by_graph


@contextmanager
def masked(adapter: Adapter, model: nn.Module, cuts: Iterable[Cut]) -> Iterator[None]:
    """While open, zero the units of each group that are not in its ``keep_U``.

    Norms of the units take mean and variance over the kept ones. A module that a removed branch is
    returns its input. Where a norm of the units is no module by itself the model is run by its
    graph meanwhile, and hooks do not fire.

    Parameters
    ----------
    cuts : groups of the model, each with the units that it keeps, int64 [U] ascending

    Examples
    --------
    >>> import torch
    >>> from timm.models.vision_transformer import VisionTransformer
    >>> from agflow.models import adapter_for
    >>> from agflow.pruning.masks import masked
    >>> model = VisionTransformer(img_size=32, embed_dim=48, depth=2, num_heads=4).eval()
    >>> adapter, images = adapter_for(model), torch.randn(2, 3, 32, 32)
    >>> heads = next(layer for layer in adapter.layers(model) if layer.kind == "heads")
    >>> dense = model(images)
    >>> with masked(adapter, model, [(heads, torch.tensor([0, 2]))]):
    ...     torch.equal(model(images), dense)
    False
    >>> torch.equal(model(images), dense)
    True
    """
    cuts = list(cuts)
    hooks = (hook for group, keep_U in cuts for hook in _hooks(model, group, keep_U))
    hooks = itertools.chain(norms_of_kept(model, cuts), hooks)
    masks = run_by_graph(model, cuts) if are_in_code(cuts) else temporary_hooks(hooks)
    with _unread(model, cuts), watched(adapter, model), masks:
        yield


@contextmanager
def _unread(model: nn.Module, cuts: list[Cut]) -> Iterator[None]:
    """Zero the weights that read removed units, while open."""
    whole: dict[torch.Tensor, torch.Tensor] = {}
    try:
        for group, keep_U in cuts:
            for member in group.of(CONSUMER):
                tensor = tensor_of(model, group, member)
                if tensor not in whole:
                    whole[tensor] = tensor.detach().clone()
                size = tensor.shape[member.axis]
                gone_S = torch.ones(size, dtype=torch.bool)
                gone_S[member.kept(size, group.units, keep_U.cpu())] = False
                gone = gone_S.nonzero().flatten().to(tensor.device)
                tensor.detach().index_fill_(member.axis, gone, 0)
        yield
    finally:
        for tensor, before in whole.items():
            tensor.detach().copy_(before)


def _hooks(
    model: nn.Module, group: ChannelGroup, keep_U: torch.Tensor
) -> Iterator[RemovableHandle]:
    """Hook every place where Y is said to be seen, or the module that a removed branch is."""
    module = dict(model.named_modules()).get(group.name)
    if not len(keep_U) and module is not None:
        yield module.register_forward_hook(lambda _, inputs, output: inputs[0])
        return
    keep_C, first = channels_of(keep_U, group.unit_width), 0
    for tap in group.taps if group.of(CONSUMER) else group.seen_at:
        kept_C = keep_C
        if group.side_by_side:
            kept_C = keep_C[(keep_C >= first) & (keep_C < first + (tap.count or 0))] - first
            first += tap.count or 0
        yield _mask(model.get_submodule(tap.module), tap, kept_C)


def _mask(module: nn.Module, tap: Tap, keep_C: torch.Tensor) -> RemovableHandle:
    """Hook the module so that only the channels ``keep_C`` pass the tap."""

    def zeroed(y: torch.Tensor) -> torch.Tensor:
        mask_C = torch.ones(y.shape[tap.axis], dtype=y.dtype, device=y.device)
        mask_C[tap.channels] = 0
        mask_C[tap.first + keep_C.to(y.device)] = 1
        behind = y.ndim - 1 - tap.axis % y.ndim
        return y * mask_C.view(-1, *[1] * behind)

    def zeroed_output(_: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        return zeroed(output)

    if tap.side == "output":
        return module.register_forward_hook(zeroed_output)
    if isinstance(module, nn.LayerNorm) and tap.axis == -1:
        return module.register_forward_hook(
            lambda _, inputs, output: _norm_of_kept(module, inputs[0], keep_C)
        )
    return module.register_forward_pre_hook(lambda _, inputs: (zeroed(inputs[0]), *inputs[1:]))


def _norm_of_kept(norm: nn.LayerNorm, x: torch.Tensor, keep_C: torch.Tensor) -> torch.Tensor:
    """Apply the norm over the kept channels, and return zeros in the others."""
    keep_C = keep_C.to(x.device)
    out = torch.zeros_like(x)
    out[..., keep_C] = F.layer_norm(
        x[..., keep_C], keep_C.shape, norm.weight[keep_C], norm.bias[keep_C], norm.eps
    )
    return out
