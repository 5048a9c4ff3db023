"""Layers and wrappers of other tools inside a model: what they are, in words, and what to do."""

from __future__ import annotations

import re
from functools import cache

from torch import nn

_MERGE = "merge them first (peft: model = model.merge_and_unload())"
_FLOAT = "pass the model in float, and quantise the pruned one"
_PARALLEL = "a wrapper of parallel training: put its .module in its place"
_KINDS = (
    (r"(^|[._])lora", f"a layer with LoRA matrices beside its weight: {_MERGE}"),
    (r"^peft\.", f"a layer of peft's adapters: {_MERGE}"),
    (r"\.qat\.", "a layer that simulates quantisation: pass the model before it was prepared"),
    (r"\.quantization\.", "part of a model prepared for quantisation: pass the one before"),
    ("quantized", f"a quantised layer: {_FLOAT}"),
    (r"\bbitsandbytes\.", f"a quantised layer: {_FLOAT}"),
    (r"\bquanto\.", f"a quantised layer: {_FLOAT}"),
    (r"\btorchao\.", f"a quantised layer: {_FLOAT}"),
    (r"^torch\._dynamo\.", "a torch.compile wrapper: put its ._orig_mod in its place"),
    (r"^torch\.nn\.parallel\.", _PARALLEL),
    (r"^torch\.distributed\.fsdp", _PARALLEL),
    ("checkpoint_wrapper", "a checkpointing wrapper: put the module inside in its place"),
)
"""Patterns in a class's full name in small letters, and what such a class is."""


def foreign(layer: nn.Module) -> str | None:
    """Say what a layer of another tool is and what to do; None for any other layer.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.foreign_layers import foreign
    >>> foreign(torch.compile(nn.Linear(2, 2)))
    'a torch.compile wrapper: put its ._orig_mod in its place'
    >>> foreign(nn.Linear(2, 2)) is None
    True
    """
    if any(name.startswith("lora_") for name in layer._parameters):
        return _KINDS[0][1]
    return _of_class(type(layer))


@cache
def _of_class(kind: type) -> str | None:
    place = f"{kind.__module__}.{kind.__name__}".lower()
    return next((words for part, words in _KINDS if re.search(part, place)), None)


def kind_of(layer: object) -> str:
    """Name the class of what stands where a layer is expected, with its article.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.foreign_layers import kind_of
    >>> kind_of(nn.Identity()), kind_of(None)
    ('an Identity', 'a NoneType')
    """
    name = type(layer).__name__
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"
