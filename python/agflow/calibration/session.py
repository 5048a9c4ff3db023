"""Statistics sessions of the Go core: sums over the batches of a calibration that runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agflow._core.loader import core
from agflow.models import ChannelGroup

_SIZES = ("units", "unit_width", "unit_macs", "unit_params", "parts")
_DESCRIBED = ("name", *_SIZES, "rounds", "may_vanish", "residual")


@contextmanager
def statistics_session(
    model: Mapping[str, Any],
    layers: Iterable[ChannelGroup],
    *,
    workers: int = 1,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """Open a session over ``layers`` and give its number; it is closed on exit.

    Parameters
    ----------
    model : name, macs and params of the dense model
    workers : threads at most, among which the channels of a batch are divided
    metadata : of the table
    """
    described = [
        {**{field: getattr(layer, field) for field in _DESCRIBED}, "group": layer.kind}
        for layer in layers
    ]
    session = core().statistics_open(
        json.dumps(
            {"model": model, "layers": described, "workers": workers, "metadata": metadata or {}}
        )
    )
    try:
        yield session
    finally:
        core().statistics_close(session)
