"""What a search makes one after the other, so that a recipe can keep it and find it again."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from agflow.cascade.ledger import CascadeCosts
from agflow.pruning.planning import Plan
from agflow.search.candidates import Candidate
from agflow.search.frontier import EvaluatedCandidate

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class SearchedExpert:
    """The model of a candidate at one stage of a search, with its evaluation.

    Attributes
    ----------
    plan : that it was pruned by; None for a dense one at a smaller image size
    costs : of one image
    heavy_seconds : of the heavy expert, per image; 0 where nothing was timed
    """

    candidate: Candidate
    model: nn.Module
    plan: Plan | None
    evaluated: EvaluatedCandidate
    costs: CascadeCosts
    heavy_seconds: float


class SearchSteps:
    """Makes what a search asks for, and keeps nothing.

    A subclass may keep what is made under a name, and give that instead of making it again.
    """

    def tensors(self, name: str, make: Callable[[], Tensors]) -> Tensors:
        """Tensors by their names."""
        return make()

    def expert(
        self, name: str, make: Callable[[pathlib.Path | None], SearchedExpert | None]
    ) -> SearchedExpert | None:
        """An expert, None where none can be made.

        Parameters
        ----------
        make : gets the path of a checkpoint from which its training may go on, or None
        """
        return make(None)
