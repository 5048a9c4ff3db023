"""Serving: a cascade as the Go server calls it, in PyTorch, or in ONNX Runtime without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.serving.opening import open_cascade as open_cascade
    from agflow.serving.served_cascade import ServedCascade as ServedCascade

_HOMES = {"ServedCascade": "served_cascade", "open_cascade": "opening"}
__all__ = ["ServedCascade", "open_cascade"]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
