"""Small attentions in the ways that code deals channels out to heads, of 8x8 images."""

import torch
from small_attention import Transformer
from torch import nn
from torch.nn import functional as F


class Heads(nn.Module):
    """Queries, keys and values of one layer, dealt out by one reshape; products as torch has them.

    Its heads are 6 wide.
    """

    def __init__(self, width=12, heads=2, values=6):
        super().__init__()
        self.heads, self.inner = heads, 6 * heads
        self.qkv = nn.Linear(width, 2 * self.inner + values * heads)
        self.proj = nn.Linear(values * heads, width)

    def forward(self, x):
        y = self.attend(*self.dealt(x))
        return self.proj(y.transpose(1, 2).flatten(2))

    def dealt(self, x):
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class Scaled(Heads):
    """Products by a factor that was computed when the module was made."""

    def __init__(self):
        super().__init__()
        self.factor = 6**-0.5

    def attend(self, q, k, v):
        return (q * self.factor @ k.mT).softmax(-1) @ v


class Measured(Heads):
    """Products by the root of the width that is found."""

    def attend(self, q, k, v):
        return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) @ v


class Counted(Heads):
    """The width of a head, by which it reshapes and divides, stands in an attribute."""

    def __init__(self):
        super().__init__()
        self.width = 6

    def dealt(self, x):
        parts = self.qkv(x).unflatten(-1, (3, self.heads, self.width))
        return parts.permute(2, 0, 3, 1, 4)

    def attend(self, q, k, v):
        return (q @ k.mT / self.width**0.5).softmax(-1) @ v


class Chunked(Heads):
    """Thirds, each dealt out to heads."""

    def dealt(self, x):
        return (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))


class HeadsFirst(Heads):
    """The queries of a head lie before its keys and values, then come those of the next."""

    def dealt(self, x):
        return self.qkv(x).unflatten(-1, (self.heads, 3, -1)).permute(3, 0, 2, 1, 4).unbind(0)


class Separate(Heads):
    """A layer each, and values of another width than queries and keys."""

    def __init__(self, heads=2, few=2):
        super().__init__(heads=heads, values=4)
        del self.qkv
        self.few = few
        self.q, self.k = nn.Linear(12, 6 * heads), nn.Linear(12, 6 * few)
        self.v = nn.Linear(12, 4 * few)

    def dealt(self, x):
        return (
            of(x).unflatten(-1, (heads, -1)).transpose(1, 2)
            for of, heads in ((self.q, self.heads), (self.k, self.few), (self.v, self.few))
        )


class Grouped(Separate):
    """Two heads of queries each share the keys and values of one."""

    def __init__(self):
        super().__init__(heads=4)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


class Repeated(Grouped):
    """The same by repeated keys and values."""

    def attend(self, q, k, v):
        k, v = (t.repeat_interleave(self.heads // self.few, 1) for t in (k, v))
        return F.scaled_dot_product_attention(q, k, v)


class Summed(Separate):
    """Einstein sums, of one head."""

    def forward(self, x):
        scores = torch.einsum("bqd,bkd->bqk", self.q(x), self.k(x)) / 5
        return self.proj(torch.einsum("bqk,bkd->bqd", scores.softmax(-1), self.v(x)))


class Normed(Separate):
    """Running statistics behind queries and keys."""

    def __init__(self):
        super().__init__()
        self.norm_q, self.norm_k = nn.BatchNorm1d(12), nn.BatchNorm1d(12)

    def dealt(self, x):
        q, k, v = (of(x) for of in (self.q, self.k, self.v))
        q, k = (norm(t.mT).mT for norm, t in ((self.norm_q, q), (self.norm_k, k)))
        return (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))


class Biased(Heads):
    """A bias of three vectors, that of keys zero, as BEiT has it."""

    def __init__(self):
        super().__init__()
        self.qkv.bias = None
        self.bias_q, self.bias_v = (nn.Parameter(torch.randn(12)) for _ in range(2))
        self.register_buffer("bias_k", torch.zeros(12))

    def dealt(self, x):
        bias = torch.cat([self.bias_q, self.bias_k, self.bias_v])
        x = self.qkv(x) + bias
        return x.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)


class Placed(Separate):
    """Each head adds biases of its own to queries and keys: they lie along two axes."""

    def __init__(self):
        super().__init__()
        self.bias_q, self.bias_k = (nn.Parameter(torch.randn(2, 1, 6)) for _ in range(2))

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q + self.bias_q, k + self.bias_k, v)


class Rotated(Separate):
    """Queries and keys rotate in pairs of channels."""

    def attend(self, q, k, v):
        angle = torch.arange(q.shape[-2])[:, None] * torch.tensor([1.0, 0.3, 0.1])
        sin, cos = (torch.cat([f, f], -1) for f in (angle.sin().to(q), angle.cos().to(q)))
        turn = lambda t: t * cos + torch.cat([-t[..., 3:], t[..., :3]], -1) * sin
        return F.scaled_dot_product_attention(turn(q), turn(k), v)


class Cosine(Separate):
    """Queries and keys have length 1."""

    def attend(self, q, k, v):
        return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT * 5).softmax(-1) @ v


class HeadNorm(Separate):
    """Each query and key is normalised in its head."""

    def __init__(self):
        super().__init__()
        self.norm_q, self.norm_k = nn.LayerNorm(6), nn.LayerNorm(6)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v)


class Relative(Separate):
    """Queries also meet a table of places, which all heads share."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, 16))

    def attend(self, q, k, v):
        return (q @ k.mT / 3 + q @ self.table).softmax(-1) @ v


class Fixed(Heads):
    """The width of a head stands in the code."""

    def dealt(self, x):
        return self.qkv(x).unflatten(-1, (3, self.heads, 6)).permute(2, 0, 3, 1, 4)


def network(kind):
    """A network of one such attention."""
    return Transformer(kind())
