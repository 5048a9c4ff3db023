"""Training: fine-tune a light expert, distilled from the heavy one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.training.distillation import CachedTeacher as CachedTeacher
    from agflow.training.distillation import distill as distill
    from agflow.training.finetuning import finetune as finetune

_HOMES = {"CachedTeacher": "distillation", "distill": "distillation", "finetune": "finetuning"}
__all__ = ["CachedTeacher", "distill", "finetune"]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
