"""Reshapes, permutations and repetitions: axes are regrouped and moved, their units stay."""

from __future__ import annotations

from agflow.models.tracing.axes import factored, flat, new, size
from agflow.models.tracing.call import Call, Value


def reshape(call: Call) -> Value:
    """The same elements in the same order under other sizes."""
    return call.view(call.first, call.shape)


def permutation(call: Call) -> Value:
    """Axes in the order given."""
    return [call.first[axis] for axis in call["dims"]]


def transpose(call: Call) -> Value:
    """Two axes change places."""
    x = list(call.first)
    names = [name for name in ("dim0", "dim1", "axis0", "axis1") if name in call]
    i, j = (call[name] for name in names)
    x[i], x[j] = x[j], x[i]
    return x


def reverse(call: Call) -> Value:
    """``t``, ``numpy_T`` and their like: all axes, or the last two, change places."""
    x = call.first
    last = call.name in ("aten.mT", "aten.adjoint", "aten.mH")
    return [*x[:-2], *x[:-3:-1]] if last else x[::-1]


def movedim(call: Call) -> Value:
    """Axes move to other places; the others keep their order."""
    x = call.first
    source, target = call["source"], call["destination"]
    source = [source] if isinstance(source, int) else source
    target = [target] if isinstance(target, int) else target
    moved = {t % len(x): s % len(x) for s, t in zip(source, target, strict=True)}
    others = iter(i for i in range(len(x)) if i not in moved.values())
    return [x[moved[i]] if i in moved else x[next(others)] for i in range(len(x))]


def expand(call: Call) -> Value:
    """Sizes of 1 are repeated; all that is repeated is alike, so any of it may go."""
    x = [[]] * (len(call.shape) - len(call.first)) + call.first
    return [dim if flat(dim) else new(n) for dim, n in zip(x, call.shape, strict=True)]


def repeat(call: Call) -> Value:
    """Whole axes one after the other: a new factor before their own, which the code counts."""
    x = [[]] * (len(call.shape) - len(call.first)) + call.first
    counts = [n // size(dim) for dim, n in zip(x, call.shape, strict=True)]
    # a single place is repeated as expand does it, of any number of copies
    return [call.fixed(n) + dim if flat(dim) else new(n) for dim, n in zip(x, counts, strict=True)]


def repeat_interleave(call: Call) -> Value:
    """Each unit several times in a row: a new factor behind an axis's own."""
    x, axis = list(call.first), call["dim"]
    if axis is None or not isinstance(call["repeats"], int):
        return None
    x[axis] = x[axis] + call.fixed(call["repeats"])
    return x


def pixel_shuffle(call: Call) -> Value:
    """Channels [C, r, r] become places: C stays an axis."""
    x, r = call.first, call["upscale_factor"]
    parts = factored(x[-3], r * r)
    if parts is None:
        return None
    call.freeze(parts[1], *x[-2:])
    return [*x[:-3], parts[0], *(call.places(n) for n in call.shape[-2:])]


def pixel_unshuffle(call: Call) -> Value:
    """Places become channels: [C, r, r]."""
    x, r = call.first, call["downscale_factor"]
    call.freeze(*x[-2:])
    places = [call.places(n) for n in call.shape[-2:]]
    return [*x[:-3], x[-3] + call.fixed(r * r), *places]


def channel_shuffle(call: Call) -> Value:
    """Channels [groups, rest] become [rest, groups]."""
    x, groups = list(call.first), call["groups"]
    parts = factored(x[1], size(x[1]) // groups)
    if parts is None:
        return None
    x[1] = parts[1] + parts[0]
    return x


def im2col(call: Call) -> Value:
    """Windows of maps [B, C, H, W] become columns [B, C * places of a window, windows]."""
    x = call.first
    call.freeze(*x[-2:])
    window = call.shape[-2] // size(x[-3])
    return [*x[:-3], x[-3] + call.fixed(window), call.places(call.shape[-1])]


def col2im(call: Call) -> Value:
    """Columns [B, C * places of a window, windows] become maps [B, C, H, W]."""
    x = call.first
    parts = factored(x[-2], size(x[-2]) // call.shape[-3])
    if parts is None:
        return None
    call.freeze(parts[1], x[-1])
    return [*x[:-2], parts[0], *(call.places(n) for n in call.shape[-2:])]


def windows(call: Call) -> Value:
    """``Tensor.unfold``: windows along one axis become a new, last axis."""
    x, axis = list(call.first), call["dimension"]
    call.freeze(x[axis])
    x[axis] = call.fixed(call.shape[axis % len(x)])
    return [*x, call.fixed(call["size"])]


RULES = {
    **{
        f"aten.{name}": reshape
        for name in (
            "view reshape flatten unflatten squeeze unsqueeze view_as reshape_as _unsafe_view "
            "ravel _reshape_copy"
        ).split()
    },
    "aten.permute": permutation,
    **{f"aten.{name}": transpose for name in ("transpose", "swapaxes", "swapdims")},
    **{f"aten.{name}": reverse for name in ("t", "numpy_T", "mT", "adjoint", "mH")},
    **{f"aten.{name}": movedim for name in ("movedim", "moveaxis")},
    **{f"aten.{name}": expand for name in ("expand", "expand_as", "broadcast_to")},
    "aten.repeat": repeat,
    "aten.tile": repeat,
    "aten.repeat_interleave": repeat_interleave,
    "aten.pixel_shuffle": pixel_shuffle,
    "aten.pixel_unshuffle": pixel_unshuffle,
    "aten.channel_shuffle": channel_shuffle,
    "aten.im2col": im2col,
    "aten.col2im": col2im,
    "aten.unfold": windows,
}
