"""What a model returns, as logits."""

from __future__ import annotations

import torch

from agflow.errors import UnsupportedModelError


def logits_of(output: object) -> torch.Tensor:
    """The logits [B, K] in what ``model(images)`` returned: the tensor itself or, as in transformers, its ``.logits``.

    Raises
    ------
    UnsupportedModelError
        There are none, as in a tuple.
    """
    logits_BK = getattr(output, "logits", output)
    if not isinstance(logits_BK, torch.Tensor):
        raise UnsupportedModelError(
            f"the model returned a {type(output).__name__}, expected logits [images, classes] or "
            "an object with .logits: "
            "switch off modes that return several outputs (set_distilled_training, "
            "return_dict=False)"
        )
    return logits_BK
