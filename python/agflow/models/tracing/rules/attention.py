"""Attention in one operator: what is soundly known of it, heads and the channels of the values."""

from __future__ import annotations

from agflow.models.tracing.axes import factored, flat, size
from agflow.models.tracing.call import Call, Value


def attention(call: Call) -> Value:
    """Queries and keys are summed over by each other, and tokens by softmax: these stay."""
    q, k, v = (call.dims(name) for name in ("query", "key", "value"))
    leading = list(q[:-2])
    if call.get("enable_gqa"):  # query heads in a row share a head of the keys and values
        parts = factored(leading[-1], size(leading[-1]) // size(k[-3]))
        if parts is None:
            return None
        leading[-1], shared = parts
        call.freeze(shared)
    call.unify(q[-1], k[-1])
    call.unify(k[-2], v[-2])
    call.freeze(q[-1], k[-1], k[-2], v[-2])
    for of_q, of_k, of_v in zip(leading, k[:-2], v[:-2], strict=True):
        call.unify(of_q, of_k)
        call.unify(of_q, of_v)
    mask = call.dims("attn_mask")
    for dim, own in zip(reversed(mask), reversed([*q[:-1], k[-2]]), strict=False):
        if flat(dim):
            call.unify(dim, own)
    return [*q[:-1], v[-1]]


RULES = {"aten.scaled_dot_product_attention": attention}
