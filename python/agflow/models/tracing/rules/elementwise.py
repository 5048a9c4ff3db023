"""Operators that work on each element by itself; tensors of several axes broadcast."""

from __future__ import annotations

from agflow.models.tracing.axes import flat, split
from agflow.models.tracing.call import Call, Value


def elementwise(call: Call) -> Value:
    """The axes of all tensors that an operator reads, aligned at the last."""
    inputs = [call.dims_of(node) for node in call.tensors]
    found = []
    for i in range(len(call.shape), 0, -1):
        met = [dims[-i] for dims in inputs if len(dims) >= i and flat(dims[-i])]
        for other in met[1:]:
            call.unify(met[0], other)
        found.append(met[0] if met else [])
    return found


def unchanged(call: Call) -> Value:
    """The axes of the first argument, for each result."""
    return call.results(call.first)


def prelu(call: Call) -> Value:
    """A slope for each channel, or one for all."""
    x, slope = call.dims("self"), call.dims("weight")
    if slope and flat(slope[0]):
        call.unify(x[1 if len(x) > 1 else 0], slope[0])
    return x


def glu(call: Call) -> Value:
    """One half gates the other, so that both have the same units."""
    x = list(call.first)
    axis = call["dim"] % len(x)
    half = call.shape[axis]
    pieces = split(x[axis], [half, half])
    if pieces is None:
        return None
    call.unify(*pieces)
    x[axis] = pieces[0]
    return x


RULES = {
    **dict.fromkeys(
        (
            "aten." + name
            for name in (
                "hardswish log_sigmoid where floor_divide masked_fill copy relu6 selu silu mish "
                "softsign tanhshrink rrelu elu celu __and__ __or__ float_power true_divide "
                "multiply divide subtract isclose dropout"
            ).split()
        ),
        elementwise,
    ),
    **dict.fromkeys(
        (
            "aten." + name
            for name in (
                "feature_dropout alpha_dropout feature_alpha_dropout native_dropout to _to_copy "
                "type_as contiguous clone alias detach lift_fresh lift_fresh_copy lift zeros_like "
                "ones_like full_like rand_like randn_like empty_like bernoulli fill zero float "
                "half double bool requires_grad"
            ).split()
        ),
        unchanged,
    ),
    "aten.prelu": prelu,
    "aten.glu": glu,
}
