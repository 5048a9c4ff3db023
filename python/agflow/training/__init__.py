"""Training: fine-tune a light expert, distilled from the heavy one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.training.cached_views import CachedViews as CachedViews
    from agflow.training.distillation import CachedTeacher as CachedTeacher, distill as distill
    from agflow.training.finetuning import finetune as finetune
    from agflow.training.history import History as History
    from agflow.training.options import (
        Checkpointing as Checkpointing,
        Distillation as Distillation,
        TrainingOptions as TrainingOptions,
    )

_HOMES = {
    "CachedTeacher": "distillation",
    "CachedViews": "cached_views",
    "Checkpointing": "options",
    "Distillation": "options",
    "History": "history",
    "TrainingOptions": "options",
    "distill": "distillation",
    "finetune": "finetuning",
}
__all__ = [
    "CachedTeacher",
    "CachedViews",
    "Checkpointing",
    "Distillation",
    "History",
    "TrainingOptions",
    "distill",
    "finetune",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
