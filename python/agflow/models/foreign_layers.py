"""Layers that stand where a plain one is expected: what they are, in words, and what to do."""

from __future__ import annotations

from torch import nn

_MERGE = "merge them first (peft: model = model.merge_and_unload())"
_FLOAT = "pass the model in float and quantise the pruned one"
_KINDS = (
    ("lora", f"a layer with LoRA matrices beside its weight: {_MERGE}"),
    ("peft", f"a layer of peft's adapters: {_MERGE}"),
    ("quantized", f"a quantised layer: {_FLOAT}"),
    ("bitsandbytes", f"a quantised layer: {_FLOAT}"),
    ("quanto", f"a quantised layer: {_FLOAT}"),
    ("torchao", f"a quantised layer: {_FLOAT}"),
    (".qat.", "a layer that simulates quantisation: pass the model before it was prepared"),
    ("_dynamo", "a torch.compile wrapper: put its ._orig_mod in its place"),
    ("data_parallel", "a wrapper of parallel training: put its .module in its place"),
    (".parallel.", "a wrapper of parallel training: put its .module in its place"),
    ("fsdp", "a wrapper of parallel training: put its module in its place"),
    ("checkpoint_wrapper", "a checkpointing wrapper: put its module in its place"),
)


def kind_of(layer: object) -> str:
    """Say what a layer is, for messages: its class, and where that is known the cure.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.foreign_layers import kind_of
    >>> kind_of(nn.Identity()), kind_of(None)
    ('an Identity', 'a NoneType')
    """
    kind = type(layer)
    place = f"{kind.__module__}.{kind.__name__}"
    article = "an" if kind.__name__[0] in "AEIO" else "a"
    known = next((words for part, words in _KINDS if part in place.lower()), None)
    if isinstance(layer, nn.Module) and any("lora_" in name for name in layer._parameters):
        known = _KINDS[0][1]
    return f"{article} {kind.__name__}" if known is None else f"{place}, {known}"
