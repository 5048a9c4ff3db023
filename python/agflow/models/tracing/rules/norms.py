"""Norms: their weights go with the channels; means over channels tie the channels together."""

from __future__ import annotations

from agflow.models.tracing.axes import Reason, flat, freeze, mark_normed, new, size
from agflow.models.tracing.call import Call, Value

STANDARDISED = (
    "read by weights that are standardised over them in each pass: "
    "agflow.models.plain_weights(model) puts plain layers with these weights in their places"
)


def batch_norm(call: Call) -> Value:
    """Statistics of each channel by itself; of the tensor at hand, they mix all other axes."""
    x = call.dims("input")
    channel = 1 if len(x) > 1 else 0
    _tie(call, x[channel], "weight", "bias", "running_mean", "running_var")
    if call["running_mean"] is None or call.get("training") or call.get("use_input_stats"):
        weights = call.is_weight(call["input"])
        reason = Reason(call.name, STANDARDISED) if weights else call.reason
        freeze([leaf for i, dim in enumerate(x) if i != channel for leaf in dim], reason)
    return x


def layer_norm(call: Call) -> Value:
    """Means over the last axes."""
    x = call.dims("input")
    normed = x[-len(call["normalized_shape"]) :]
    for name in ("weight", "bias"):
        if call.get(name) is not None:
            for dim, own in zip(normed, call.dims(name), strict=True):
                call.unify(dim, own)
    if len(normed) == 1:
        call.norm(len(x) - 1)
    else:
        for dim in normed:
            mark_normed(dim)
    return x


def group_norm(call: Call) -> Value:
    """Means over the channels of a group and all places."""
    x, groups = call.dims("input"), call["num_groups"]
    _tie(call, x[1], "weight", "bias")
    within = new(size(x[1]) // groups)
    call.unify(x[1], new(groups) + within)
    mark_normed(within)
    call.freeze(*x[2:])
    return x


def weight_norm(call: Call) -> Value:
    """A weight ``v`` scaled to the lengths ``g`` along one axis, by sums over all others."""
    v, g, axis = call.dims("v"), call.dims("g"), call["dim"]
    if axis == -1:  # one length for all
        return None
    call.unify(v[axis], g[axis])
    call.freeze(*(dim for i, dim in enumerate(v) if i != axis))
    return v


def _tie(call: Call, channels, *names: str) -> None:
    for name in names:
        if call[name] is not None and flat(call.dims(name)[0]):
            call.unify(channels, call.dims(name)[0])


RULES = {
    "aten.batch_norm": batch_norm,
    "aten.instance_norm": batch_norm,
    "aten.layer_norm": layer_norm,
    "aten.rms_norm": layer_norm,
    "aten.group_norm": group_norm,
    "aten._weight_norm": weight_norm,
}
