"""Parts of axes taken out and put together: slices, splits, concatenations, padding."""

from __future__ import annotations

from collections.abc import Sequence

from agflow.models.tracing.axes import (
    Dim,
    Reason,
    all_frozen,
    concatenation,
    factored,
    new,
    positions,
    size,
    split,
)
from agflow.models.tracing.call import Call, Dims, Value


def _pieces(call: Call, dim: Dim, sizes: Sequence[int]) -> list[Dim]:
    """Consecutive pieces of an axis; new ones where it cannot be parted there."""
    found = None
    if not all_frozen(dim):
        found = split(dim, [n for n in sizes if n])
    if found is None:
        call.freeze(dim)
        return [call.fixed(n) for n in sizes]
    rest = iter(found)
    return [next(rest) if n else call.fixed(0) for n in sizes]


def splitting(call: Call) -> Value:
    """``split``, ``chunk`` and their like."""
    x = call.first
    axis = call["dim"] % len(x)
    pieces = _pieces(call, x[axis], [shape[axis] for shape in call.shapes])
    return tuple([*x[:axis], piece, *x[axis + 1 :]] for piece in pieces)


def slicing(call: Call) -> Value:
    """A range of an axis, or every so manieth of it."""
    x = list(call.first)
    axis = call["dim"] % len(x)
    total, got = size(x[axis]), call.shape[axis]
    start = min(_place(call["start"] or 0, total), total)
    if total != got:
        x[axis] = _range(call, x[axis], start, got, call["step"])
    return x


def _place(index: int, total: int) -> int:
    return max(index + total, 0) if index < 0 else index


def _range(call: Call, dim: Dim, start: int, got: int, step: int) -> Dim:
    total = size(dim)
    if step == 1:
        sizes = [start, got, total - start - got]
        return _pieces(call, dim, sizes)[1]
    parts = None if all_frozen(dim) or got * step != total else factored(dim, step)
    if parts is None:
        call.freeze(dim)
        return call.fixed(got)
    call.unify(parts[1], positions(step))
    return parts[0]


def narrow(call: Call) -> Value:
    """A range of an axis by its start and length."""
    x = list(call.first)
    axis = call["dim"] % len(x)
    x[axis] = _range(call, x[axis], _place(call["start"], size(x[axis])), call["length"], 1)
    return x


def selection(call: Call) -> Value:
    """One place of an axis, which thereby stays as it is."""
    x = list(call.first)
    call.freeze(x.pop(call["dim"]))
    return x


def unbinding(call: Call) -> Value:
    """All places of an axis one by one."""
    return call.results(_without(call, call["dim"]))


def _without(call: Call, axis: int) -> Dims:
    x = list(call.first)
    call.freeze(x.pop(axis))
    return x


def cat(call: Call) -> Value:
    """Axes one after the other; the other axes have the same units."""
    inputs = [call.dims_of(node) for node in call["tensors"]]
    inputs = [dims for dims in inputs if [size(dim) for dim in dims] != [0]]
    axis = call["dim"] % len(inputs[0])
    found = list(inputs[0])
    for other in inputs[1:]:
        for i, dim in enumerate(other):
            if i != axis:
                call.unify(found[i], dim)
    parts = [dims[axis] for dims in inputs if size(dims[axis])]
    whole = concatenation(parts) if parts else call.fixed(0)
    found[axis] = call.fixed(size(whole)) if all_frozen(whole) else whole
    return found


def stack(call: Call) -> Value:
    """A new axis for the tensors, which have the same units."""
    inputs = [call.dims_of(node) for node in call["tensors"]]
    axis = call["dim"] % (len(inputs[0]) + 1)
    for other in inputs[1:]:
        for dim, own in zip(other, inputs[0], strict=True):
            call.unify(own, dim)
    return [*inputs[0][:axis], positions(len(inputs)), *inputs[0][axis:]]


def pad(call: Call) -> Value:
    """Places before and behind an axis, or fewer of it.

    Zeros beside channels are a part of their own, and stay: their number stands in the code.
    """
    x, amounts = list(call.first), _amounts(call)
    constant = call.name == "aten.constant_pad_nd" or (
        "mode" in call and call["mode"] == "constant"
    )
    for i, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True), 1):
        if not before and not after:
            continue
        total = call.shape[-i]
        if all_frozen(x[-i]) or not constant:
            call.freeze(x[-i])
            x[-i] = call.fixed(total)
        else:
            x[-i] = _padded(call, x[-i], before, after)
    return x


def _amounts(call: Call) -> list[int]:
    return list(call.get("pad") or call["padding"])


def _padded(call: Call, dim: Dim, before: int, after: int) -> Dim:
    cut = [max(-before, 0), max(-after, 0)]
    if any(cut):
        dim = _pieces(call, dim, [cut[0], size(dim) - sum(cut), cut[1]])[1]
    reason = Reason(call.name, f"beside zeros of {call.name}")
    parts = [new(max(before, 0), reason), dim, new(max(after, 0), reason)]
    return concatenation([part for part in parts if size(part)])


def index(call: Call) -> Value:
    """Places that tensors of numbers name: the axes that they count stay."""
    x, indices = call.first, call["indices"]
    at = [i for i, place in enumerate(indices) if place is not None]
    if at != list(range(at[0], at[-1] + 1)):
        return None
    call.freeze(*(x[i] for i in at))
    count = len(call.shape) - (len(x) - len(at))
    named = [call.fixed(n) for n in call.shape[at[0] : at[0] + count]]
    return [*x[: at[0]], *named, *x[at[-1] + 1 :]]


def index_select(call: Call) -> Value:
    """Places of one axis that a tensor names."""
    x = list(call.first)
    axis = call["dim"] % len(x)
    call.freeze(x[axis])
    x[axis] = call.fixed(call.shape[axis])
    return x


def embedding(call: Call) -> Value:
    """Rows of a table."""
    table, places = call.dims("weight"), call.dims("indices")
    call.freeze(table[0])
    return [*places, table[1]]


RULES = {
    **{
        f"aten.{name}": splitting
        for name in (
            "split split_with_sizes chunk tensor_split unsafe_split unsafe_chunk "
            "unsafe_split_with_sizes"
        ).split()
    },
    "aten.slice": slicing,
    "aten.narrow": narrow,
    "aten.select": selection,
    "aten.unbind": unbinding,
    **{f"aten.{name}": cat for name in ("cat", "concat", "concatenate")},
    "aten.stack": stack,
    **{
        f"aten.{name}": pad
        for name in (
            "pad",
            "constant_pad_nd",
            *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)),
        )
    },
    "aten.index": index,
    "aten.index_select": index_select,
    "aten.embedding": embedding,
}
