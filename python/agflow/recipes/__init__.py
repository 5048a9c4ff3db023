"""Recipes: whole workflows, which the command calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.recipes.cascade_design import DesignOptions as DesignOptions, design as design
    from agflow.recipes.iterative import prune_iteratively as prune_iteratively
    from agflow.recipes.pipeline import run as run
    from agflow.recipes.results import RunOptions as RunOptions, RunResult as RunResult
    from agflow.recipes.shrink_report import ShrinkReport as ShrinkReport
    from agflow.recipes.shrinking import ShrinkOptions as ShrinkOptions, shrink as shrink
    from agflow.recipes.step_options import StepOptions as StepOptions
    from agflow.recipes.steps import Step as Step

_HOMES = {
    "DesignOptions": "cascade_design",
    "RunOptions": "results",
    "RunResult": "results",
    "ShrinkOptions": "shrinking",
    "ShrinkReport": "shrink_report",
    "Step": "steps",
    "StepOptions": "step_options",
    "design": "cascade_design",
    "prune_iteratively": "iterative",
    "run": "pipeline",
    "shrink": "shrinking",
}
__all__ = [
    "DesignOptions",
    "RunOptions",
    "RunResult",
    "ShrinkOptions",
    "ShrinkReport",
    "Step",
    "StepOptions",
    "design",
    "prune_iteratively",
    "run",
    "shrink",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
