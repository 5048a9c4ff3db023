"""Self-attention whose values may differ in width from queries and keys, after cuts inside heads.

Shape suffixes: B images, T tokens, D embedding, N heads, W head width, A = N * W channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Attention that replaces a family's own, with linear layers and norms of the same names.

    Queries and keys have ``qk_width`` channels a head, values ``v_width``. Products are scaled by
    1/sqrt(``head_dim``), the head width of the dense model, whatever is left of it. Masks are not
    supported, and attention weights not returned.

    Parameters
    ----------
    projections : one linear layer for queries, keys and values one after the other, or one for
        each, by name
    output : the linear layer behind the heads, by name; none where the model calls it itself
    others : modules by name: ``q_norm`` and ``k_norm``, through which queries and keys go head by
        head, ``proj_drop``, through which the output goes
    dropout : probability for attention weights, in training
    in_tuple : return (output, None), as the model expects
    """

    def __init__(
        self,
        projections: Mapping[str, nn.Linear],
        output: Mapping[str, nn.Linear],
        others: Mapping[str, nn.Module],
        *,
        num_heads: int,
        head_dim: int,
        dropout: float,
        in_tuple: bool,
        training: bool,
    ):
        super().__init__()
        for name, module in {**projections, **output, **others}.items():
            self.add_module(name, module)
        self.projections, self.output = tuple(projections), next(iter(output), None)
        self.num_heads, self.head_dim, self.qk_width, self.v_width = (
            num_heads,
            head_dim,
            head_dim,
            head_dim,
        )
        self.dropout, self.in_tuple, self.training = dropout, in_tuple, training

    def forward(self, x_BTD: torch.Tensor, *_, **__) -> torch.Tensor | tuple[torch.Tensor, None]:
        """Output [B, T, D]; other arguments (key and value, which are x) are ignored."""
        projected = [getattr(self, name)(x_BTD) for name in self.projections]
        if len(projected) == 1:
            qk, v = self.num_heads * self.qk_width, self.num_heads * self.v_width
            projected = projected[0].split([qk, qk, v], -1)
        q_BTA, k_BTA, v_BTA = projected
        norms = [getattr(self, name) for name in ("q_norm", "k_norm") if hasattr(self, name)]
        y_BTD = attend(
            q_BTA,
            k_BTA,
            v_BTA,
            self.num_heads,
            self.head_dim,
            self.dropout if self.training else 0.0,
            *norms,
        )
        if self.output is not None:
            y_BTD = getattr(self, self.output)(y_BTD)
        proj_drop = getattr(self, "proj_drop", None)
        if proj_drop is not None:
            y_BTD = proj_drop(y_BTD)
        return (y_BTD, None) if self.in_tuple else y_BTD

    def _load_from_state_dict(
        self, state_dict: dict[str, torch.Tensor], prefix: str, *args, **kwargs
    ) -> None:
        """Accept the names of nn.MultiheadAttention, which older experts of torchvision have."""
        for part in ("weight", "bias"):
            with suppress(KeyError):
                state_dict[f"{prefix}in_proj.{part}"] = state_dict.pop(f"{prefix}in_proj_{part}")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def attend(
    q_BTA: torch.Tensor,
    k_BTA: torch.Tensor,
    v_BTA: torch.Tensor,
    num_heads: int,
    head_dim: int,
    dropout: float = 0.0,
    q_norm: nn.Module | None = None,
    k_norm: nn.Module | None = None,
) -> torch.Tensor:
    """Scaled dot-product attention of all heads: outputs [B, T, A of the values].

    Where queries and values differ in width, the narrower are padded with zeros, which change
    nothing: torch's fused kernel on the CPU, which takes half the time or less, needs equal widths.
    """
    q, k, v = (
        x_BTA.unflatten(-1, (num_heads, -1)).transpose(1, 2) for x_BTA in (q_BTA, k_BTA, v_BTA)
    )
    if q_norm is not None and k_norm is not None:
        q, k = q_norm(q), k_norm(k)
    v_width, more = v.shape[-1], v.shape[-1] - q.shape[-1]
    if more > 0:
        q, k = F.pad(q, (0, more)), F.pad(k, (0, more))
    elif more < 0:
        v = F.pad(v, (0, -more))
    y_BNTW = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, scale=head_dim**-0.5)
    return y_BNTW[..., :v_width].transpose(1, 2).flatten(2)
