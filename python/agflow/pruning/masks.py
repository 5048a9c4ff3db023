"""Units switched off without a cut: what a smaller model must agree with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from agflow.models import Adapter, PrunableLayer, Tap
from agflow.models.adapter import channels_of


@contextmanager
def masked(
    adapter: Adapter, model: nn.Module, cuts: Iterable[tuple[PrunableLayer, torch.Tensor]]
) -> Iterator[None]:
    """While open, the units of each layer that are not in its ``keep_U`` are zero wherever they are seen.

    Norms that read the residual stream take mean and variance over its kept channels.
    """
    with adapter.watchable(model), ExitStack() as hooks:
        for layer, keep_U in cuts:
            for tap in layer.seen_at:
                hook = _mask(
                    model.get_submodule(tap.module), tap, channels_of(keep_U, layer.unit_width)
                )
                hooks.callback(hook.remove)
        yield


def _mask(module: nn.Module, tap: Tap, keep_C: torch.Tensor) -> RemovableHandle:
    """Whenever the module runs, what passes the tap keeps only the channels ``keep_C``."""

    def zeroed(y: torch.Tensor) -> torch.Tensor:
        mask_C = torch.ones(y.shape[-1], dtype=y.dtype, device=y.device)
        mask_C[tap.channels] = 0
        mask_C[tap.first + keep_C.to(y.device)] = 1
        return y * mask_C

    if tap.side == "output":
        return module.register_forward_hook(lambda _, inputs, output: zeroed(output))
    if isinstance(module, nn.LayerNorm):
        return module.register_forward_hook(
            lambda _, inputs, output: _norm(module, inputs[0], keep_C)
        )
    return module.register_forward_pre_hook(lambda _, inputs: zeroed(inputs[0]))


def _norm(norm: nn.LayerNorm, x: torch.Tensor, keep_C: torch.Tensor) -> torch.Tensor:
    """The norm over the kept channels, and zeros in the others."""
    keep_C = keep_C.to(x.device)
    out = torch.zeros_like(x)
    out[..., keep_C] = F.layer_norm(
        x[..., keep_C], keep_C.shape, norm.weight[keep_C], norm.bias[keep_C], norm.eps
    )
    return out
