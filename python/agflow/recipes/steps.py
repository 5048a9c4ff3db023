"""Records and experts of the steps of iterative pruning."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from agflow.pruning.planning import Plan


@dataclass(frozen=True)
class Step:
    """Record of one step of :func:`agflow.prune_iteratively`.

    Attributes
    ----------
    number : from 1
    goal, budget, macs : MACs per image allowed after the last step, allowed after this one, and of
        this step's expert
    params : parameters of the expert
    repaired, control : top-1 accuracy in [0, 1] on tuning images after pruning and repair, before
        the fine-tuning: of the criterion, and of random units under the same budget
    history : of the fine-tuning (see :func:`agflow.finetune`)
    """

    number: int
    goal: int
    budget: int
    macs: int
    params: int
    repaired: float
    control: float
    history: tuple[dict[str, float], ...] = ()


@dataclass(frozen=True)
class StepExpert:
    """Expert of a step, before or after its fine-tuning, with its plan and record."""

    model: nn.Module
    plan: Plan
    record: Step
