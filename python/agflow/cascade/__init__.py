"""Cascades: predictions of two experts, a calibrated router, and both as one module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agflow._utils.lazy import lazy_names

if TYPE_CHECKING:
    from agflow.cascade.cascade import Cascade as Cascade, CascadeCall as CascadeCall
    from agflow.cascade.cascade_evaluation import evaluate_cascade as evaluate_cascade
    from agflow.cascade.curves import Curve as Curve, curve as curve, oracle as oracle
    from agflow.cascade.ensemble import combine as combine, fit_light_weight as fit_light_weight
    from agflow.cascade.expert_passes import predict as predict, tuned_on as tuned_on
    from agflow.cascade.folder import load_cascade as load_cascade, save_cascade as save_cascade
    from agflow.cascade.ledger import CascadeCosts as CascadeCosts, Ledger as Ledger
    from agflow.cascade.logits import Decisions as Decisions, Logits as Logits
    from agflow.cascade.prediction_options import (
        ExtraPriors as ExtraPriors,
        FixedParameters as FixedParameters,
        ImageSketches as ImageSketches,
    )
    from agflow.cascade.predictions import (
        Predictions as Predictions,
        join_predictions as join_predictions,
    )
    from agflow.cascade.prior_quality import (
        PriorQuality as PriorQuality,
        rank_priors as rank_priors,
    )
    from agflow.cascade.priors import (
        agreement as agreement,
        escalations as escalations,
        fit_temperature as fit_temperature,
    )
    from agflow.cascade.router import Router as Router, calibrate_router as calibrate_router
    from agflow.cascade.router_evaluation import (
        RouterEvaluation as RouterEvaluation,
        evaluate_router as evaluate_router,
    )
    from agflow.cascade.server import Server as Server
    from agflow.cascade.shared_prefix import shared_halves as shared_halves
    from agflow.cascade.verdict import Verdict as Verdict

_HOMES = {
    "Cascade": "cascade",
    "CascadeCall": "cascade",
    "CascadeCosts": "ledger",
    "Curve": "curves",
    "Decisions": "logits",
    "ExtraPriors": "prediction_options",
    "FixedParameters": "prediction_options",
    "ImageSketches": "prediction_options",
    "Ledger": "ledger",
    "Logits": "logits",
    "Predictions": "predictions",
    "PriorQuality": "prior_quality",
    "Router": "router",
    "RouterEvaluation": "router_evaluation",
    "Server": "server",
    "Verdict": "verdict",
    "agreement": "priors",
    "calibrate_router": "router",
    "combine": "ensemble",
    "curve": "curves",
    "escalations": "priors",
    "evaluate_cascade": "cascade_evaluation",
    "evaluate_router": "router_evaluation",
    "fit_light_weight": "ensemble",
    "fit_temperature": "priors",
    "join_predictions": "predictions",
    "load_cascade": "folder",
    "oracle": "curves",
    "predict": "expert_passes",
    "tuned_on": "expert_passes",
    "rank_priors": "prior_quality",
    "save_cascade": "folder",
    "shared_halves": "shared_prefix",
}
__all__ = [
    "Cascade",
    "CascadeCall",
    "CascadeCosts",
    "Curve",
    "Decisions",
    "ExtraPriors",
    "FixedParameters",
    "ImageSketches",
    "Ledger",
    "Logits",
    "Predictions",
    "PriorQuality",
    "Router",
    "RouterEvaluation",
    "Server",
    "Verdict",
    "agreement",
    "calibrate_router",
    "combine",
    "curve",
    "escalations",
    "evaluate_cascade",
    "evaluate_router",
    "fit_light_weight",
    "fit_temperature",
    "join_predictions",
    "load_cascade",
    "oracle",
    "predict",
    "tuned_on",
    "rank_priors",
    "save_cascade",
    "shared_halves",
]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
