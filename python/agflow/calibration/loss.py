"""The loss whose gradients a calibration measures."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from agflow.errors import InvalidValueError, ShapeError

LOSS_NAME = "cross_entropy, sum over the batch"


def per_image_loss(logits_BK: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """Compute the cross entropy, summed over the batch.

    A sum, so that an image's gradient does not depend on its batch; in float32 at least.

    Parameters
    ----------
    logits_BK : [B, K]
    labels_B : int64 [B], from 0 to K - 1

    Returns
    -------
    scalar

    Raises
    ------
    ShapeError
        Logits and labels do not match.
    InvalidValueError
        A label is not one of the classes.

    Examples
    --------
    >>> import torch
    >>> from agflow.calibration import per_image_loss
    >>> per_image_loss(torch.zeros(2, 10), torch.tensor([3, 7]))
    tensor(4.6052)
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
    # A sum in sixteen bits would overflow or round.
    wide_BK = logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))
    return F.cross_entropy(wide_BK, labels_B, reduction="sum")
