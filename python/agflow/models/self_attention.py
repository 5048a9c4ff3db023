"""nn.MultiheadAttention for self-attention, but with any number of heads and with an output layer that is called.

Shape suffixes: B images, T tokens, D embedding, N heads, W head width, A = N * W attention channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from agflow.models.adapter import channels_of
from agflow.models.linear_units import keep_inputs, resized


class SelfAttention(nn.Module):
    """What is left of a batch-first :class:`torch.nn.MultiheadAttention` when heads are cut.

    That class ties the attention channels A to the embedding D; here A is ``num_heads * head_dim``, whatever D is.
    Names, parameters and the call are the same, so that the module fits where the other was, and :meth:`forward` runs
    on either: ``in_proj_weight`` [3 A, D] and ``in_proj_bias`` [3 A] hold query, key and value one after the other,
    ``out_proj`` maps A to D. Masks and attention weights are not given.
    """

    def __init__(self, like: nn.MultiheadAttention | SelfAttention, num_heads: int):
        """As ``like`` with another number of heads; the weights are not set."""
        super().__init__()
        self.num_heads, self.head_dim, self.dropout = num_heads, like.head_dim, like.dropout
        channels = num_heads * like.head_dim
        self.in_proj_weight = _empty_rows(like.in_proj_weight, 3 * channels)
        self.in_proj_bias = None if like.in_proj_bias is None else _empty_rows(like.in_proj_bias, 3 * channels)
        self.out_proj = resized(like.out_proj, channels, like.out_proj.out_features)
        self.train(like.training)

    def forward(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, need_weights: bool = False) -> tuple[torch.Tensor, None]:
        """Output [B, T, D] for ``query`` [B, T, D], which is key and value, too."""
        batch, tokens, _ = query.shape
        qkv_BT3A = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv_BT3A.view(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y_BNTW = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0.0)
        return self.out_proj(y_BNTW.transpose(1, 2).flatten(2)), None


@torch.no_grad()
def keep_heads(attention: nn.MultiheadAttention | SelfAttention, keep_U: torch.Tensor) -> SelfAttention:
    """A copy that has only the heads ``keep_U`` (ascending int64)."""
    cut = SelfAttention(attention, len(keep_U))
    keep_A = channels_of(keep_U, attention.head_dim)
    rows = torch.cat([part * attention.out_proj.in_features + keep_A for part in range(3)])
    cut.in_proj_weight.copy_(attention.in_proj_weight[rows])
    if cut.in_proj_bias is not None:
        cut.in_proj_bias.copy_(attention.in_proj_bias[rows])
    cut.out_proj = keep_inputs(attention.out_proj, keep_A)
    return cut


@contextmanager
def output_layer_called(attention: nn.MultiheadAttention) -> Iterator[None]:
    """While open, ``attention`` calls its ``out_proj``, so that hooks on it fire, and gives no attention weights.

    PyTorch's own forward hands the weights of out_proj to a fused function instead.
    """
    before = vars(attention).get("forward")
    attention.forward = partial(SelfAttention.forward, attention)
    try:
        yield
    finally:
        del attention.forward
        if before is not None:
            attention.forward = before


def _empty_rows(like: nn.Parameter, rows: int) -> nn.Parameter:
    return nn.Parameter(like.new_empty(rows, *like.shape[1:]), requires_grad=like.requires_grad)
