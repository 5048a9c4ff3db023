"""Exporting: models and cascades for other runtimes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.exporting.cascade import export_cascade as export_cascade
    from agflow.exporting.models import export as export
    from agflow.exporting.quantizing import Quantization as Quantization
    from agflow.exporting.recalibration import HeldOutImages as HeldOutImages

_HOMES = {
    "HeldOutImages": "recalibration",
    "Quantization": "quantizing",
    "export": "models",
    "export_cascade": "cascade",
}
__all__ = ["HeldOutImages", "Quantization", "export", "export_cascade"]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
