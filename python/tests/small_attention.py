"""Small networks with attention in the ways that code writes it, of 8x8 images and 5 classes."""

import torch
from torch import nn
from torch.nn import functional as F


class Packed(nn.Module):
    """Queries, keys and values of one layer; the width of all heads stands in an attribute."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.heads, self.inner = heads, 4 * heads
        self.qkv = nn.Linear(width, 3 * self.inner)
        self.proj = nn.Linear(self.inner, width)

    def forward(self, x):
        rows, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(rows, tokens, 3, self.heads, 4).permute(2, 0, 3, 1, 4)
        y = self.attend(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(rows, tokens, self.inner))

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class Written(Packed):
    """The products and the softmax written out, with a bias for each head from a table."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(31, 3))
        self.register_buffer("places", torch.arange(16)[:, None] - torch.arange(16) + 15)

    def attend(self, q, k, v):
        scores = q @ k.transpose(-2, -1) * 0.5
        bias = self.table[self.places.flatten()].view(16, 16, -1).permute(2, 0, 1)
        return (scores + bias).softmax(-1) @ v


class Summed(Packed):
    """The products as Einstein sums."""

    def attend(self, q, k, v):
        scores = torch.einsum("bhqd,bhkd->bhqk", q, k).softmax(-1)
        return torch.einsum("...hqk,...hkd->...hqd", scores, v)


class Separate(nn.Module):
    """Queries of twice as many heads as keys and values, whose heads serve two each."""

    def __init__(self, width=12, heads=2):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, 8 * heads)
        self.k, self.v = nn.Linear(width, 4 * heads), nn.Linear(width, 4 * heads)
        self.proj = nn.Linear(8 * heads, width)

    def forward(self, x):
        rows, tokens, _ = x.shape
        q = self.q(x).view(rows, tokens, self.heads, 2, 4).permute(0, 2, 3, 1, 4)
        k = self.k(x).view(rows, tokens, self.heads, 1, 4).permute(0, 2, 3, 1, 4)
        v = self.v(x).view(rows, tokens, self.heads, 1, 4).permute(0, 2, 3, 1, 4)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.permute(0, 3, 1, 2, 4).flatten(2))


class Counted(Separate):
    """The same with both numbers of heads on the module, as most libraries write it."""

    def __init__(self, shared=True, heads=2):
        super().__init__(heads=heads)
        self.heads, self.few, self.shared = 2 * heads, heads, shared

    def forward(self, x):
        rows, tokens, _ = x.shape
        q, k, v = (
            of(x).view(rows, tokens, count, -1).transpose(1, 2)
            for of, count in ((self.q, self.heads), (self.k, self.few), (self.v, self.few))
        )
        if not self.shared:
            k, v = (t.repeat_interleave(self.heads // self.few, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.shared)
        return self.proj(y.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    """A SwiGLU."""

    def __init__(self, width=12, inner=10):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * inner), nn.Linear(inner, width)

    def forward(self, x):
        gate, value = self.up(x).chunk(2, -1)
        return self.down(F.silu(gate) * value)


class Windows(nn.Module):
    """Attention inside of windows of 2x2 places, of maps [B, H, W, C] that are rolled before."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def forward(self, x):
        rows, _, _, width = x.shape
        x = x.roll((-1, -1), (1, 2)).view(rows, 2, 2, 2, 2, width)
        y = self.attention(x.transpose(2, 3).reshape(-1, 4, width))
        y = y.view(rows, 2, 2, 2, 2, width).transpose(2, 3).reshape(rows, 4, 4, width)
        return y.roll((1, 1), (1, 2))


class Transformer(nn.Module):
    """Patches, an attention, a gated layer, and norms before both; tokens or maps [B, H, W, C]."""

    def __init__(self, attention, tokens=True):
        super().__init__()
        self.patches, self.tokens = nn.Conv2d(3, 12, 2, 2), tokens
        self.norm1, self.norm2 = nn.LayerNorm(12), nn.LayerNorm(12)
        self.attention, self.mlp = attention, Gated()
        self.scale = nn.Parameter(torch.full((12,), 0.5))
        self.head = nn.Linear(12, 5)

    def forward(self, images):
        x = self.patches(images).permute(0, 2, 3, 1)
        x = x.flatten(1, 2) if self.tokens else x
        x = x + self.scale * self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x.flatten(1, -2).mean(1))


NETWORKS = {
    "packed": lambda: Transformer(Packed()),
    "bias of a table": lambda: Transformer(Written()),
    "Einstein sums": lambda: Transformer(Summed()),
    "grouped queries": lambda: Transformer(Separate()),
    "grouped queries of the operator": lambda: Transformer(Counted()),
    "grouped queries, keys repeated": lambda: Transformer(Counted(shared=False)),
    "windows": lambda: Transformer(Windows(Packed()), tokens=False),
}
"""By what is particular to the attention, a network with two groups: heads, and a gated layer."""
