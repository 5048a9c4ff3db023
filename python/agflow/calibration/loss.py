"""The loss that a calibration differentiates."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from agflow.errors import InvalidValueError, ShapeError

LOSS = "cross_entropy, sum over the batch"


def per_image_loss(logits_BK: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """Cross entropy summed over the batch, so that an image's gradient does not depend on its batch.

    Raises
    ------
    ShapeError
        Logits and labels do not match.
    InvalidValueError
        A label is not one of the classes.
    """
    if logits_BK.ndim != 2 or labels_B.shape != logits_BK.shape[:1]:
        raise ShapeError(
            f"logits are {list(logits_BK.shape)} and labels {list(labels_B.shape)}, expected "
            "[images, classes] and [images]"
        )
    low, high = int(labels_B.min()), int(labels_B.max())
    if low < 0 or high >= logits_BK.shape[1]:
        raise InvalidValueError(
            f"labels run from {low} to {high}, the model has {logits_BK.shape[1]} classes: use "
            "labels of the model's own classes"
        )
    wide_BK = logits_BK.to(
        torch.promote_types(logits_BK.dtype, torch.float32)
    )  # a sum in sixteen bits would overflow or round
    return F.cross_entropy(wide_BK, labels_B, reduction="sum")
