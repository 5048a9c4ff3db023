"""Convolutions: the input's channels are summed over, the kernel's filters are the result's."""

from __future__ import annotations

from agflow.models.tracing.axes import Dim, new, size
from agflow.models.tracing.call import Call, Dims, Value


def convolution(call: Call) -> Value:
    """Plain, grouped and depthwise convolutions, and transposed ones."""
    x, w = call.dims("input"), call.dims("weight")
    places = len(w) - 2
    batch, channels = x[: -places - 1], x[-places - 1]
    transposed = "transpose" in call.name or bool(call.get("transposed"))
    out = _channels(call, channels, 1 if transposed else 0)
    if call["bias"] is not None:
        call.unify(call.dims("bias")[0], out)
    return [*batch, out, *_places(call, x[-places:], w[2:], transposed)]


def _channels(call: Call, channels: Dim, out_axis: int) -> Dim:
    """The channels of the result. A transposed kernel is [in, out / groups, ...]."""
    weight, groups = call["weight"], call["groups"]
    out, into = call.emit(weight, out_axis), call.dims("weight")[1 - out_axis]
    if groups == 1:
        call.contract(channels, weight, into)
        return out
    of_group, within = new(groups), new(size(channels) // groups)
    call.unify(channels, of_group + within)
    if out_axis == 1:
        call.unify(into, of_group + within)
        call.contract(within, weight, within)
        return of_group + out
    call.unify(out, of_group + new(size(out) // groups))
    call.contract(within, weight, into)
    return out


def _places(call: Call, x: Dims, kernel: Dims, transposed: bool) -> Dims:
    """Axes of the result's places. A kernel of one place mixes none, if no place is left out."""
    call.freeze(*kernel)
    found = []
    for dim, width, after in zip(x, kernel, call.shape[-len(x) :], strict=True):
        if size(width) == 1 and size(dim) == after and not transposed:
            found.append(dim)
        else:
            call.freeze(dim)
            found.append(call.places(after))
    return found


RULES = dict.fromkeys(
    (
        *(f"aten.conv{n}d" for n in (1, 2, 3)),
        *(f"aten.conv_transpose{n}d" for n in (1, 2, 3)),
        "aten.convolution",
    ),
    convolution,
)
