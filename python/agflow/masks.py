"""Units switched off without a cut: what a smaller model must agree with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from agflow.models import Adapter, PrunableLayer
from agflow.models.adapter import channels_of


@contextmanager
def masked(adapter: Adapter, model: nn.Module, cuts: Iterable[tuple[PrunableLayer, torch.Tensor]]) -> Iterator[None]:
    """While open, the units of each layer that are not in its ``keep_U`` are zero wherever they are seen.

    Norms that read the residual stream take mean and variance over its kept channels.
    """
    with adapter.watchable(model), ExitStack() as hooks:
        for layer, keep_U in cuts:
            for tap in layer.seen_at:
                module = model.get_submodule(tap.module)
                keep_C = tap.first + channels_of(keep_U, layer.unit_width)
                if tap.side == "output":
                    end = tap.first + layer.units * layer.unit_width
                    hook = module.register_forward_hook(lambda _, inputs, y, mask=partial(_mask, keep_C=keep_C, first=tap.first, end=end): mask(y))
                elif isinstance(module, nn.LayerNorm):
                    hook = module.register_forward_hook(lambda norm, inputs, _, keep_C=keep_C: _norm(norm, inputs[0], keep_C))
                else:
                    hook = module.register_forward_pre_hook(lambda _, inputs, mask=partial(_mask, keep_C=keep_C): mask(inputs[0]))
                hooks.callback(hook.remove)
        yield


def _mask(y: torch.Tensor, keep_C: torch.Tensor, first: int = 0, end: int | None = None) -> torch.Tensor:
    """``y`` with zeros in its channels from ``first`` to ``end`` that are not kept."""
    mask_C = torch.ones(y.shape[-1], dtype=y.dtype, device=y.device)
    mask_C[first:end] = 0
    mask_C[keep_C.to(y.device)] = 1
    return y * mask_C


def _norm(norm: nn.LayerNorm, x: torch.Tensor, keep_C: torch.Tensor) -> torch.Tensor:
    """The norm over the kept channels, and zeros in the others."""
    keep_C = keep_C.to(x.device)
    out = torch.zeros_like(x)
    out[..., keep_C] = F.layer_norm(x[..., keep_C], keep_C.shape, norm.weight[keep_C], norm.bias[keep_C], norm.eps)
    return out
