"""What a model puts out: logits, features of images, or several tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from agflow.errors import UnsupportedModelError

FEATURE_NAMES = (
    "image_embeds",
    "pooler_output",
    "last_hidden_state",
    "x_norm_clstoken",
    "features",
    "out",
)
"""Names that libraries have for the features of images, those of the whole image first."""


def logits_of(output: Any) -> torch.Tensor:
    """Find the logits [B, K] in what ``model(images)`` returned.

    They are the tensor or array itself or, as in transformers, its ``.logits``; in a dictionary
    what is called ``"logits"``; the one item of a list, as other runtimes return it.

    Raises
    ------
    UnsupportedModelError
        There are none, or several things that could be.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> from agflow.models import logits_of
    >>> logits = torch.zeros(2, 10)
    >>> all(
    ...     logits_of(output) is logits
    ...     for output in (logits, SimpleNamespace(logits=logits), {"logits": logits}, [logits])
    ... )
    True
    """
    found = getattr(output, "logits", output)
    if isinstance(found, Mapping) and "logits" in found:
        found = found["logits"]
    elif isinstance(found, (Mapping, tuple, list)) and len(found) == 1:
        (found,) = found.values() if isinstance(found, Mapping) else found
    if isinstance(found, torch.Tensor):
        return found
    # Numbers of other libraries; lists of numbers are taken for several outputs.
    if hasattr(found, "__array__") and (array := np.asarray(found)).dtype.kind in "fiu":
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
    raise UnsupportedModelError(
        f"the model returned a {kind_of_output(output)}, expected logits [images, classes] or "
        "an object with .logits: switch off modes that return several outputs "
        "(set_distilled_training, return_dict=False), or wrap it in a function that returns them"
    )


def has_logits(output: Any) -> bool:
    """Whether an output calls something its logits."""
    named = output.get("logits") if isinstance(output, Mapping) else None
    return isinstance(getattr(output, "logits", named), torch.Tensor)


def features_of(output: Any) -> torch.Tensor:
    """Find the features [B, ...] in what a model without a classifier returned.

    They are the tensor itself; in an object or a dictionary the first of ``image_embeds``,
    ``pooler_output``, ``last_hidden_state`` (transformers), ``x_norm_clstoken`` (DINOv2),
    ``features`` and ``out`` that is there, or the one tensor in it; of a tuple the first tensor (as
    transformers orders them), of a list of maps the last one, which is the deepest. Of a dictionary
    of maps [B, C, H, W] without such a name, as detectors have them, they are all maps, flattened
    side by side: the layers behind read every one of them.

    Raises
    ------
    UnsupportedModelError
        There are none, or several things that could be.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> from agflow.models import features_of
    >>> pooled, tokens = torch.zeros(2, 8), torch.zeros(2, 5, 8)
    >>> output = {"last_hidden_state": tokens, "pooler_output": pooled}
    >>> features_of(output) is pooled, features_of((tokens, pooled)) is tokens
    (True, True)
    """
    if isinstance(output, torch.Tensor):
        return output
    named = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
    for name in FEATURE_NAMES:
        if isinstance(named.get(name), torch.Tensor):
            return named[name]
    found = list(_tensors(output))
    if isinstance(output, (tuple, list)) and found:
        return found[0 if isinstance(output, tuple) else -1]
    if len(found) == 1:
        return found[0]
    if isinstance(output, Mapping) and found and all(x.ndim == 4 for x in found):
        return torch.cat([x.flatten(1) for x in found], 1)
    raise UnsupportedModelError(
        f"the model returned a {kind_of_output(output)}, expected features of images as a tensor "
        f"or by one of the names {', '.join(FEATURE_NAMES)}: wrap it in a module that returns them"
    )


def whole_output(output: Any) -> torch.Tensor:
    """All numbers [B, N] that a model put out, by which two models are found to be the same.

    Those of a classifier are its logits, in the shape that they have.

    Raises
    ------
    UnsupportedModelError
        It put out no tensor.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.outputs import whole_output
    >>> whole_output((torch.zeros(2, 5, 8), {"pooled": torch.zeros(2, 8)})).shape
    torch.Size([2, 48])
    """
    try:
        return logits_of(output)
    except UnsupportedModelError:
        found = [x.reshape(len(x), -1) for x in _tensors(output) if x.ndim]
        if not found or len({len(x) for x in found}) > 1:
            raise
        return torch.cat(found, 1)


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """The tensors of floats in an output, in its order."""
    if isinstance(output, torch.Tensor) and output.is_floating_point():
        yield output
    elif isinstance(output, Mapping):
        yield from (x for value in output.values() for x in _tensors(value))
    elif isinstance(output, (tuple, list)):
        yield from (x for value in output for x in _tensors(value))


def kind_of_output(output: Any) -> str:
    """An output in words: its type, with its parts or its shape."""
    name = type(output).__name__
    if isinstance(output, torch.Tensor):
        return f"{name} {list(output.shape)}"
    if isinstance(output, Mapping):
        return f"{name} of {', '.join(map(str, output))}"
    return f"{name} of {len(output)} items" if isinstance(output, (tuple, list)) else name
