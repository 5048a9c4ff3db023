"""agflow: measure gradient flow in a vision network, prune what carries none, and route images between both sizes.

The public names load at first use, so that ``import agflow`` starts neither torch nor the Go core.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow import (
        bench as bench,
    )
    from agflow import (
        calibration as calibration,
    )
    from agflow import (
        cascade as cascade,
    )
    from agflow import (
        data as data,
    )
    from agflow import (
        diagnostics as diagnostics,
    )
    from agflow import (
        errors as errors,
    )
    from agflow import (
        evaluation as evaluation,
    )
    from agflow import (
        example as example,
    )
    from agflow import (
        exporting as exporting,
    )
    from agflow import (
        functional as functional,
    )
    from agflow import (
        models as models,
    )
    from agflow import (
        plotting as plotting,
    )
    from agflow import (
        pruning as pruning,
    )
    from agflow import (
        recipes as recipes,
    )
    from agflow import (
        research as research,
    )
    from agflow import (
        search as search,
    )
    from agflow import (
        table as table,
    )
    from agflow import (
        training as training,
    )
    from agflow.calibration.calibration import calibrate as calibrate
    from agflow.calibration.statistics import Statistics as Statistics
    from agflow.cascade.cascade import Cascade as Cascade
    from agflow.cascade.folder import load as load
    from agflow.cascade.folder import save as save
    from agflow.cascade.predictions import Predictions as Predictions
    from agflow.cascade.predictions import predict as predict
    from agflow.cascade.router import Router as Router
    from agflow.cascade.router import calibrate_router as calibrate_router
    from agflow.cascade.router_evaluation import evaluate_router as evaluate_router
    from agflow.cascade.server import Server as Server
    from agflow.data.datasets import load_dataset as load_dataset
    from agflow.evaluation.accuracy import evaluate as evaluate
    from agflow.exporting.models import export as export
    from agflow.models import count_macs as count_macs
    from agflow.models import load_model as load_model
    from agflow.pruning.planning import Plan as Plan
    from agflow.pruning.planning import plan as plan
    from agflow.pruning.pruner import prune as prune
    from agflow.pruning.scoring import Scores as Scores
    from agflow.pruning.scoring import criteria as criteria
    from agflow.pruning.scoring import score as score
    from agflow.recipes.iterative import prune_iteratively as prune_iteratively
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
    "calibrate": "calibration.calibration",
    "calibrate_router": "cascade.router",
    "count_macs": "models",
    "criteria": "pruning.scoring",
    "design_cascade": "search.halving",
    "evaluate": "evaluation.accuracy",
    "evaluate_router": "cascade.router_evaluation",
    "export": "exporting.models",
    "finetune": "training.finetuning",
    "load": "cascade.folder",
    "load_dataset": "data.datasets",
    "load_model": "models",
    "plan": "pruning.planning",
    "predict": "cascade.predictions",
    "prune": "pruning.pruner",
    "prune_iteratively": "recipes.iterative",
    "save": "cascade.folder",
    "score": "pruning.scoring",
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
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES, _SUBMODULES)
