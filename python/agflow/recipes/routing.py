"""How a run calibrates and evaluates a cascade on the logits of both experts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader

from agflow.cascade.curves import curve
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import FixedParameters, Predictions, join_predictions
from agflow.cascade.router import calibrate_router
from agflow.cascade.router_evaluation import evaluate_router
from agflow.evaluation.accuracy import restrict
from agflow.models.passes import LABELS, run_models
from agflow.recipes.results import CascadeResult, RunOptions


@dataclass(frozen=True)
class Answers:
    """Logits of both experts on the same images, float32 [N, K], and labels int64 [N]."""

    light_NK: torch.Tensor
    heavy_NK: torch.Tensor
    labels_N: torch.Tensor

    @classmethod
    def of(cls, light: nn.Module, heavy: nn.Module, loader: DataLoader) -> Answers:
        """Run both experts over the images of ``loader``."""
        rows = run_models({"light": light, "heavy": heavy}, loader, description="both experts")
        return cls(rows["light"], rows["heavy"], rows[LABELS])

    def among(self, classes: torch.Tensor) -> Answers:
        """The same with both experts restricted to ``classes``."""
        light_NK, labels_N = restrict(self.light_NK, self.labels_N, classes)
        heavy_NK, _ = restrict(self.heavy_NK, self.labels_N, classes)
        return Answers(light_NK, heavy_NK, labels_N)


def route(
    held_out: Answers, tested: Answers, costs: CascadeCosts, options: RunOptions
) -> tuple[CascadeResult, Predictions, Predictions]:
    """Calibrate the threshold on ``held_out`` and evaluate it on ``tested``.

    Returns
    -------
    the result on ``tested``, and the predictions of ``held_out`` and of ``tested``
    """
    calibrating = join_predictions(held_out.light_NK, held_out.heavy_NK, held_out.labels_N, costs)
    predictions = join_predictions(
        tested.light_NK,
        tested.heavy_NK,
        tested.labels_N,
        costs,
        fixed=FixedParameters(temperature=calibrating.temperature),
    )
    router = calibrate_router(
        calibrating, tolerance=options.tolerance, confidence=options.confidence
    )
    result = CascadeResult(router, evaluate_router(predictions, router), curve(predictions))
    return result, calibrating, predictions


def route_among_present(
    held_out: Answers, tested: Answers, costs: CascadeCosts, options: RunOptions
) -> CascadeResult | None:
    """The result with both experts restricted to the classes that occur; None where all do."""
    present = torch.cat([held_out.labels_N, tested.labels_N]).unique()
    if len(present) == held_out.light_NK.shape[1]:
        return None
    return route(held_out.among(present), tested.among(present), costs, options)[0]
