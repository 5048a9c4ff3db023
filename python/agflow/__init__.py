"""agflow: measure gradient flow in a Vision Transformer, cut what carries none, and route images between both sizes.

The public names load on first use, so that ``import agflow`` starts neither torch nor the Go core.
"""

from __future__ import annotations

import importlib
import importlib.metadata

_HOMES = {
    "calibrate": "calibration", "Statistics": "statistics",
    "utility": "flow", "top_k": "flow",
    "diagnose": "diagnostics", "stability": "diagnostics", "against_random": "diagnostics",
    "criteria": "planning", "score": "planning", "plan": "planning", "Scores": "planning", "Plan": "planning", "LatencyTable": "latency",
    "at_image_size": "looks", "prune": "surgery", "only_classes": "classes", "finetune": "finetuning", "Remembered": "distilling",
    "design_cascade": "design", "CascadeDesign": "design", "save_expert": "experts", "load_expert": "experts",
    "prune_iteratively": "iterative", "gather_statistics": "distributed", "export": "exporting",
    "evaluate": "evaluation", "predict": "routing", "calibrate_router": "routing", "curve": "routing",
    "judge": "judging", "Judgement": "judging",
    "Router": "routing", "Predictions": "routing", "Curve": "routing", "Ledger": "routing", "Cascade": "cascade", "Server": "serving",
    "save_cascade": "deployment", "load_cascade": "deployment", "export_cascade": "deployment", "sketch_images": "fingerprints",
    "Logits": "decisions", "Decisions": "decisions",
    "count_macs": "models", "plot_utilities": "plotting", "plot_stages": "plotting", "plot_cascade": "plotting",
    "plot_reliability": "plotting", "plot_escalated": "plotting", "UtilityTrace": "bottleneck", "image_utilities": "bottleneck", "with_utilities": "bottleneck",
    "backend_name": "_core.loader",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name == "__version__":
        return importlib.metadata.version("agflow")
    if name in _HOMES:
        return getattr(importlib.import_module(f"agflow.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'agflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
