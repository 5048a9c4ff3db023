"""The config of a transformers model: what it says of the widths, and what it cannot."""

# torch types every submodule as `Tensor | Module`; an adapter knows the classes of its family.
# pyright: reportAttributeAccessIssue=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from torch import nn

KEPT = (
    "hidden_size",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "image_size",
    "patch_size",
    "num_channels",
    "qkv_bias",
)
"""What an expert's folder keeps of a config, beside the widths of every block."""
NOTES = ("initializer_range", "encoder_stride", "pooler_act", "problem_type")
"""What it keeps, too, since some version; no model computes its logits by it."""


def say_widths(model: nn.Module, shapes: Mapping[str, Any]) -> str | None:
    """Write a model's widths into its config; where that cannot say them, return the reason.

    Parameters
    ----------
    shapes : of all blocks, of :meth:`VisionTransformerAdapter.shapes`

    Examples
    --------
    >>> import transformers
    >>> from agflow.models.families.transformers_config import say_widths
    >>> small = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2}
    >>> model = transformers.ViTForImageClassification(transformers.ViTConfig(**small))
    >>> shapes = {"head_dim": 4, "heads": [2, 2], "inner": [None, None], "mlp": [96, 96]}
    >>> say_widths(model, shapes), model.config.intermediate_size
    (None, 96)
    >>> say_widths(model, {**shapes, "heads": [2, 1]})
    'its blocks have 1 to 2 heads'
    """
    config: Any = model.config
    stream = model.base_model.embeddings.cls_token.shape[-1]
    heads, mlp, width = shapes["heads"], shapes["mlp"], shapes["head_dim"]
    if not all(heads) or not all(mlp):
        gone = sum(not left for left in (*heads, *mlp))
        return f"{gone} residual {'branch is' if gone == 1 else 'branches are'} gone"
    if any(inner is not None and list(inner) != [width, width] for inner in shapes["inner"]):
        return "queries, keys or values have lost channels inside their heads"
    for values, what in ((heads, "heads"), (mlp, "hidden channels")):
        if len(set(values)) > 1:
            return f"its blocks have {min(values)} to {max(values)} {what}"
    if heads[0] * width != stream and not _reads_head_dim(type(model).__name__):
        return "its heads are not as wide together as its stream"
    if config.pooler_output_size == config.hidden_size:  # which it is where nothing else was said
        config.pooler_output_size = stream
    config.hidden_size, config.num_attention_heads = stream, heads[0]
    config.intermediate_size = mlp[0]
    vars(config).pop("head_dim", None)
    if heads[0] * width != stream:
        config.head_dim = width
    return None


@cache
def _reads_head_dim(name: str) -> bool:
    """Whether in this version of transformers heads have any width that the config says."""
    import transformers  # loaded already, with the model

    kind = getattr(transformers, name)
    config = kind.config_class(
        hidden_size=4, num_attention_heads=1, intermediate_size=4, num_hidden_layers=1
    )
    config.head_dim = 2
    with torch.device("meta"):
        weights = [weight.shape for weight in kind(config).parameters()]
    return (2, 4) in weights
