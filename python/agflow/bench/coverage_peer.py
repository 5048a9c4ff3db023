"""torch-pruning's trial of one model of ``agflow bench coverage``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from agflow.bench.contenders import set_attention_sizes
from agflow.bench.coverage_models import MACS, made
from agflow.errors import ShapeError
from agflow.models import head_of
from agflow.models.outputs import whole_output

RATIO = 1 - MACS**0.5  # of the channels, where both sides of each weight lose as many
_LAYERS = nn.Linear, nn.Conv2d


def peer_trial(spec: str, report: Callable[[dict[str, Any]], None]) -> None:
    """Prune a model by group magnitude, at about 0.7x of its MACs, and run what is left.

    As in its examples, layers with one output a class are left out, and where queries, keys and
    values are packed it is given the heads, and the sizes that the attention holds are set.

    Raises
    ------
    Exception
        Of any kind, from torch-pruning or from the pruned model; a ShapeError where that puts out
        no finite numbers, or not one for each class.
    """
    import torch_pruning

    model, size, _ = made(spec)
    report({"step": "prune"})
    images = torch.randn(2, *size)
    classes = head_of(model, images).classes
    last: list[nn.Module] = [
        module
        for module in model.modules()
        if isinstance(module, _LAYERS) and len(module.weight) == classes
    ]
    attentions: list[Any] = [
        module for module in model.modules() if isinstance(getattr(module, "qkv", None), nn.Linear)
    ]
    # Its counter changes the module that it is given.
    before = torch_pruning.utils.count_ops_and_params(copy.deepcopy(model), images[:1])[0]
    pruner = torch_pruning.pruner.MagnitudePruner(
        model,
        images[:1],
        importance=torch_pruning.importance.GroupMagnitudeImportance(),
        pruning_ratio=RATIO,
        ignored_layers=last,
        num_heads={attention.qkv: attention.num_heads for attention in attentions},
    )
    pruner.step()
    set_attention_sizes(attentions, pruner.num_heads)
    report({"step": "run"})
    with torch.no_grad():
        output = whole_output(model(images))
    after = torch_pruning.utils.count_ops_and_params(model, images[:1])[0]
    report({"macs": round(after / before, 3), "step": ""})
    if not output.isfinite().all() or classes and output.shape[-1] != classes:
        raise ShapeError(
            f"the pruned model puts out {list(output.shape)}, expected finite numbers"
            f"{f' for {classes} classes' if classes else ''}"
        )
