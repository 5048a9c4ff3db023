"""Sums, means and the like over axes, and what mixes the units along an axis."""

from __future__ import annotations

from agflow.models.tracing.call import Call, Value
from agflow.models.tracing.rescaling import rescales
from agflow.models.tracing.rules.elementwise import elementwise

_MEANS = {f"aten.{name}" for name in "mean var std var_mean std_mean".split()}
_SUMS = {*_MEANS, "aten.sum", "aten.norm", "aten.linalg_vector_norm"}


def reduction(call: Call) -> Value:
    """Axes over which is summed, averaged or compared; the others stay as they are.

    A mask at the readers does not reach what was summed before, so the axes summed over stay. In a
    norm they are those of the kept units alone: in a module that has nothing but weights along one
    axis, or where arithmetic alone brings a mean back to the values along the axis. (A sum outside
    of such a module would scale what is left by how much is gone.)
    """
    if "other" in call:
        return elementwise(call)
    x = call.first
    axes = _axes(call, len(x))
    in_norm = call.name in _SUMS and call.in_norm
    if len(axes) == 1 and (in_norm or (call.name in _MEANS and rescales(call.node))):
        call.norm(*axes)
    else:
        call.freeze(*(x[i] for i in axes))
    if len(call.shape) == len(x):
        return call.results([[] if i in axes else dim for i, dim in enumerate(x)])
    return call.results([dim for i, dim in enumerate(x) if i not in axes])


def _axes(call: Call, count: int) -> set[int]:
    axes = call.get("dim")
    if axes is None or axes == []:
        return set(range(count))
    return {axis % count for axis in (axes if isinstance(axes, (list, tuple)) else [axes])}


def mixing(call: Call) -> Value:
    """Softmax, cumulative sums, sorting, flips and rolls: each unit depends on its neighbours."""
    x = call.first
    axes = call["dims"] if "dims" in call else call["dim"]
    axes = axes if isinstance(axes, (list, tuple)) else [axes]
    axes = {axis % len(x) for axis in axes} or set(range(len(x)))
    call.freeze(*(x[i] for i in axes))
    sizes = call.shape
    return call.results([call.fixed(sizes[i]) if i in axes else dim for i, dim in enumerate(x)])


def triangle(call: Call) -> Value:
    """One half of the matrices in the last two axes."""
    call.freeze(*call.first[-2:])
    return call.first


RULES = {
    **{
        f"aten.{name}": reduction
        for name in (
            "mean sum amax amin max min prod var std var_mean std_mean norm linalg_vector_norm "
            "logsumexp any all argmax argmin nanmean nansum median nanmedian aminmax count_nonzero "
            "mode"
        ).split()
    },
    **{
        f"aten.{name}": mixing
        for name in (
            "softmax _softmax log_softmax _log_softmax _safe_softmax cumsum cumprod logcumsumexp "
            "cummax cummin sort argsort topk flip roll"
        ).split()
    },
    "aten.tril": triangle,
    "aten.triu": triangle,
}
