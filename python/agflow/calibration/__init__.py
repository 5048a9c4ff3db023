"""Calibration: measure what each prunable unit of a frozen model carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.calibration.calibration import calibrate as calibrate
    from agflow.calibration.cuda import device_sums as device_sums
    from agflow.calibration.gather import gather_statistics as gather_statistics
    from agflow.calibration.hooks import capture as capture
    from agflow.calibration.loss import per_image_loss as per_image_loss
    from agflow.calibration.options import CalibrationOptions as CalibrationOptions
    from agflow.calibration.statistics import Statistics as Statistics

_HOMES = {
    "CalibrationOptions": "options",
    "Statistics": "statistics",
    "calibrate": "calibration",
    "capture": "hooks",
    "device_sums": "cuda",
    "gather_statistics": "gather",
    "per_image_loss": "loss",
}
__all__ = [
    "CalibrationOptions",
    "Statistics",
    "calibrate",
    "capture",
    "device_sums",
    "gather_statistics",
    "per_image_loss",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
