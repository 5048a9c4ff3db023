"""Prune vision networks by the gradients that flow through them, and route images between experts.

Public names load at first use: ``import agflow`` imports neither torch nor the Go core.
"""

from __future__ import annotations

from agflow._utils.lazy import lazy_names

TYPE_CHECKING = False  # typing.TYPE_CHECKING to type checkers; importing typing would take longest
if TYPE_CHECKING:
    from agflow import (
        bench as bench,
        calibration as calibration,
        cascade as cascade,
        data as data,
        diagnostics as diagnostics,
        errors as errors,
        evaluation as evaluation,
        example as example,
        exporting as exporting,
        functional as functional,
        models as models,
        plotting as plotting,
        pruning as pruning,
        recipes as recipes,
        research as research,
        search as search,
        serving as serving,
        table as table,
        training as training,
    )
    from agflow._version import __version__ as __version__
    from agflow.calibration.calibration import calibrate as calibrate
    from agflow.calibration.statistics import Statistics as Statistics
    from agflow.cascade.cascade import Cascade as Cascade
    from agflow.cascade.expert_passes import predict as predict
    from agflow.cascade.folder import load as load, save as save
    from agflow.cascade.predictions import Predictions as Predictions
    from agflow.cascade.router import Router as Router, calibrate_router as calibrate_router
    from agflow.cascade.router_evaluation import evaluate_router as evaluate_router
    from agflow.cascade.server import Server as Server
    from agflow.data.datasets import load_dataset as load_dataset
    from agflow.evaluation.accuracy import evaluate as evaluate
    from agflow.exporting.models import export as export
    from agflow.models.load import load_model as load_model
    from agflow.models.registry import count_macs as count_macs
    from agflow.pruning.planning import Plan as Plan, plan as plan
    from agflow.pruning.pruner import prune as prune
    from agflow.pruning.scoring import Scores as Scores, criteria as criteria, score as score
    from agflow.recipes.iterative import prune_iteratively as prune_iteratively
    from agflow.recipes.shrinking import shrink as shrink
    from agflow.search.halving import design_cascade as design_cascade
    from agflow.training.finetuning import finetune as finetune

_HOMES = {
    "Cascade": "cascade.cascade",
    "Plan": "pruning.planning",
    "Predictions": "cascade.predictions",
    "Router": "cascade.router",
    "Scores": "pruning.scoring",
    "Server": "cascade.server",
    "Statistics": "calibration.statistics",
    "__version__": "_version",
    "calibrate": "calibration.calibration",
    "calibrate_router": "cascade.router",
    "count_macs": "models.registry",
    "criteria": "pruning.scoring",
    "design_cascade": "search.halving",
    "evaluate": "evaluation.accuracy",
    "evaluate_router": "cascade.router_evaluation",
    "export": "exporting.models",
    "finetune": "training.finetuning",
    "load": "cascade.folder",
    "load_dataset": "data.datasets",
    "load_model": "models.load",
    "plan": "pruning.planning",
    "predict": "cascade.expert_passes",
    "prune": "pruning.pruner",
    "prune_iteratively": "recipes.iterative",
    "save": "cascade.folder",
    "score": "pruning.scoring",
    "shrink": "recipes.shrinking",
}
_SUBMODULES = (
    "bench",
    "calibration",
    "cascade",
    "data",
    "diagnostics",
    "errors",
    "evaluation",
    "example",
    "exporting",
    "functional",
    "models",
    "plotting",
    "pruning",
    "recipes",
    "research",
    "search",
    "serving",
    "table",
    "training",
)
__all__ = [
    "Cascade",
    "Plan",
    "Predictions",
    "Router",
    "Scores",
    "Server",
    "Statistics",
    "calibrate",
    "calibrate_router",
    "count_macs",
    "criteria",
    "design_cascade",
    "evaluate",
    "evaluate_router",
    "export",
    "finetune",
    "load",
    "load_dataset",
    "load_model",
    "plan",
    "predict",
    "prune",
    "prune_iteratively",
    "save",
    "score",
    "shrink",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, _SUBMODULES)
