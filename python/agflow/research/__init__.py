"""Research: the AGF signal of single images and along a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.research.bottleneck import (
        UtilityTrace as UtilityTrace,
        image_utilities as image_utilities,
        with_utilities as with_utilities,
    )

_HOMES = {
    "UtilityTrace": "bottleneck",
    "image_utilities": "bottleneck",
    "with_utilities": "bottleneck",
}
__all__ = ["UtilityTrace", "image_utilities", "with_utilities"]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
