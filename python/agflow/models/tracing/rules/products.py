"""Linear layers and matrix products: one axis of each operand is summed over."""

from __future__ import annotations

from typing import Any

from agflow.models.tracing.axes import Dim, flat
from agflow.models.tracing.call import Call, Dims, Value


def linear(call: Call) -> Value:
    """``x @ weight.T + bias``: the weight is [out, in]."""
    x, weight = call.dims("input"), call["weight"]
    call.contract(x[-1], weight, call.dims("weight")[1])
    out = call.emit(weight, 0)
    if call["bias"] is not None:
        call.unify(call.dims("bias")[0], out)
    return [*x[:-1], out]


def matmul(call: Call) -> Value:
    """Of two matrices or of batches of them."""
    a, b = call.tensors
    return _product(call, a, b)


def addmm(call: Call) -> Value:
    """A product to which a vector or matrix is added, which broadcasts."""
    summand, a, b = call.tensors
    dims = _product(call, a, b)
    own = call.dims_of(summand)
    for dim, other in zip(reversed(own), reversed(dims), strict=False):
        if flat(dim):
            call.unify(dim, other)
    return dims


def _product(call: Call, a: Any, b: Any) -> Dims:
    x, y = call.dims_of(a), call.dims_of(b)
    if len(x) < 2 or len(y) < 2:
        raise ValueError("vectors")
    if call.is_weight(b) and not call.is_weight(a):
        call.contract(x[-1], b, y[-2])
        return [*_batch(call, x[:-2], y[:-2]), x[-2], call.emit(b, len(y) - 1)]
    if call.is_weight(a) and not call.is_weight(b):
        call.contract(y[-2], a, x[-1])
        return [*_batch(call, x[:-2], y[:-2]), call.emit(a, len(x) - 2), y[-1]]
    # What two computed tensors are summed over is no weight's, so that no mask could leave it out.
    call.unify(x[-1], y[-2])
    call.freeze(x[-1], y[-2])
    return [*_batch(call, x[:-2], y[:-2]), x[-2], y[-1]]


def _batch(call: Call, x: Dims, y: Dims) -> Dims:
    """The leading axes of both, which broadcast."""
    found: list[Dim] = []
    for i in range(max(len(x), len(y)), 0, -1):
        met = [dims[-i] for dims in (x, y) if len(dims) >= i and flat(dims[-i])]
        for other in met[1:]:
            call.unify(met[0], other)
        found.append(met[0] if met else [])
    return found


RULES = {
    "aten.linear": linear,
    **dict.fromkeys(("aten.matmul", "aten.mm", "aten.bmm"), matmul),
    **dict.fromkeys(("aten.addmm", "aten.baddbmm"), addmm),
}
