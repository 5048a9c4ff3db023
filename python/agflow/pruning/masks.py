"""Mask units in the full-size model: the reference that a pruned model must agree with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from agflow._utils.hooks import temporary_hooks
from agflow.models import Adapter, ChannelGroup, Tap
from agflow.models.channel_group import channels_of
from agflow.models.copying import watched


@contextmanager
def masked(
    adapter: Adapter, model: nn.Module, cuts: Iterable[tuple[ChannelGroup, torch.Tensor]]
) -> Iterator[None]:
    """While open, zero the units of each layer that are not in its ``keep_U``.

    Norms that read the residual stream take mean and variance over its kept channels.

    Parameters
    ----------
    cuts : layers of the model, each with the units that it keeps, int64 [U] ascending

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
    hooks = (
        _mask(model.get_submodule(tap.module), tap, channels_of(keep_U, layer.unit_width))
        for layer, keep_U in cuts
        for tap in layer.seen_at
    )
    with watched(adapter, model), temporary_hooks(hooks):
        yield


def _mask(module: nn.Module, tap: Tap, keep_C: torch.Tensor) -> RemovableHandle:
    """Hook the module so that only the channels ``keep_C`` pass the tap."""

    def zeroed(y: torch.Tensor) -> torch.Tensor:
        mask_C = torch.ones(y.shape[-1], dtype=y.dtype, device=y.device)
        mask_C[tap.channels] = 0
        mask_C[tap.first + keep_C.to(y.device)] = 1
        return y * mask_C

    def zeroed_output(_: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        return zeroed(output)

    if tap.side == "output":
        return module.register_forward_hook(zeroed_output)
    if isinstance(module, nn.LayerNorm):
        return module.register_forward_hook(
            lambda _, inputs, output: _norm_of_kept(module, inputs[0], keep_C)
        )
    return module.register_forward_pre_hook(lambda _, inputs: zeroed(inputs[0]))


def _norm_of_kept(norm: nn.LayerNorm, x: torch.Tensor, keep_C: torch.Tensor) -> torch.Tensor:
    """Apply the norm over the kept channels, and return zeros in the others."""
    keep_C = keep_C.to(x.device)
    out = torch.zeros_like(x)
    out[..., keep_C] = F.layer_norm(
        x[..., keep_C], keep_C.shape, norm.weight[keep_C], norm.bias[keep_C], norm.eps
    )
    return out
