"""Logits in the output of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from agflow.errors import UnsupportedModelError


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
        f"the model returned a {_kind(output)}, expected logits [images, classes] or "
        "an object with .logits: switch off modes that return several outputs "
        "(set_distilled_training, return_dict=False), or wrap it in a function that returns them"
    )


def _kind(output: Any) -> str:
    name = type(output).__name__
    if isinstance(output, Mapping):
        return f"{name} of {', '.join(map(str, output))}"
    return f"{name} of {len(output)} items" if isinstance(output, (tuple, list)) else name
