"""Pooling and resizing: places change, channels stay as they are."""

from __future__ import annotations

from agflow.models.tracing.call import Call, Value


def _over_places(count: int):
    """A rule for operators that mix the last ``count`` axes."""

    def pool(call: Call) -> Value:
        x = call.first
        call.freeze(*x[-count:])
        places = [call.places(n) for n in call.shape[-count:]]
        return call.results([*x[:-count], *places])

    return pool


def grid_sample(call: Call) -> Value:
    """Channels are read at places that a grid [B, ..., 2] names."""
    x, grid = call.dims("input"), call.dims("grid")
    call.freeze(*x[2:], *grid)
    return [*x[:2], *(call.places(n) for n in call.shape[2:])]


RULES = {
    **{
        f"aten.{kind}{count}d{suffix}": _over_places(count)
        for count in (1, 2, 3)
        for kind in ("max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool")
        for suffix in ("", "_with_indices")
    },
    **{
        f"aten.upsample_{kind}": _over_places(count)
        for kind, count in (
            ("linear1d", 1),
            ("nearest1d", 1),
            ("bilinear2d", 2),
            ("nearest2d", 2),
            ("bicubic2d", 2),
            ("trilinear3d", 3),
            ("nearest3d", 3),
        )
    },
    **{f"aten._upsample_nearest_exact{count}d": _over_places(count) for count in (1, 2, 3)},
    "aten._upsample_bilinear2d_aa": _over_places(2),
    "aten._upsample_bicubic2d_aa": _over_places(2),
    "aten.grid_sampler": grid_sample,
}
