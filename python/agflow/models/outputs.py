"""Logits in the output of a model."""

from __future__ import annotations

import torch

from agflow.errors import UnsupportedModelError


def logits_of(output: object) -> torch.Tensor:
    """Find the logits [B, K] in what ``model(images)`` returned.

    They are the tensor itself or, as in transformers, its ``.logits``.

    Raises
    ------
    UnsupportedModelError
        There are none, as in a tuple.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> import torch
    >>> from agflow.models import logits_of
    >>> logits = torch.zeros(2, 10)
    >>> logits_of(logits) is logits_of(SimpleNamespace(logits=logits))
    True
    """
    logits_BK = getattr(output, "logits", output)
    if not isinstance(logits_BK, torch.Tensor):
        raise UnsupportedModelError(
            f"the model returned a {type(output).__name__}, expected logits [images, classes] or "
            "an object with .logits: switch off modes that return several outputs "
            "(set_distilled_training, return_dict=False)"
        )
    return logits_BK
