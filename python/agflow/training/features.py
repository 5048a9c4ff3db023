"""Features that a light expert learns from a teacher: what the last blocks of both put out.

Shape suffixes: B images of a batch, T tokens or positions of a map, D and E channels of the model
and of the teacher, N rows.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from agflow.errors import ShapeError, UnsupportedModelError
from agflow.models import adapter_for
from agflow.models.callables import unwrapped


def last_block(model: nn.Module) -> nn.Module:
    """The module that puts out a model's features (see :meth:`agflow.models.Adapter.last_block`).

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model, or its adapter finds none.
    """
    model = unwrapped(model)
    return adapter_for(model).last_block(model)


def has_last_block(model: nn.Module) -> bool:
    """Whether :func:`last_block` finds one."""
    try:
        last_block(model)
    except UnsupportedModelError:
        return False
    return True


def feature_error(features_BTD: torch.Tensor, teacher_BTE: torch.Tensor) -> torch.Tensor:
    """How far the features of a model are from those of its teacher, each token normalised.

    Equally wide features are compared channel by channel: the mean squared error. Where the
    model's are narrower, since channels of its last block were cut, no channel is the counterpart
    of another one, and the similarities of all pairs of tokens are compared: 1 minus the centred
    kernel alignment (Kornblith et al., arXiv 1905.00414), 0 where they are proportional.

    Raises
    ------
    ShapeError
        Model and teacher have different numbers of tokens.

    Examples
    --------
    >>> import torch
    >>> from agflow.training.features import feature_error
    >>> features = torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(0))
    >>> turned = torch.cat([features.flip(-1), features], -1)
    >>> [round(abs(feature_error(features, of).item()), 5) for of in (3 * features, turned)]
    [0.0, 0.0]
    """
    if features_BTD.shape[:2] != teacher_BTE.shape[:2]:
        raise ShapeError(
            f"the last block of the model puts out {list(features_BTD.shape)}, that of the "
            f"teacher {list(teacher_BTE.shape)}, expected as many tokens or positions: "
            "leave features out, or take a teacher whose images and patches are of the same size"
        )
    normalised = lambda x: F.layer_norm(x, x.shape[-1:])
    features_BTD, teacher_BTE = normalised(features_BTD), normalised(teacher_BTE)
    if features_BTD.shape == teacher_BTE.shape:
        return F.mse_loss(features_BTD, teacher_BTE)
    rows_ND, teacher_NE = (centred(x.flatten(0, 1)) for x in (features_BTD, teacher_BTE))
    pairs = (rows_ND, teacher_NE), (rows_ND, rows_ND), (teacher_NE, teacher_NE)
    with torch.autocast(rows_ND.device.type, enabled=False):  # 1 minus a rounded product is noise
        between, own, others = ((a.T @ b).square().sum() for a, b in pairs)
    least = torch.finfo(between.dtype).tiny  # features without any variance are like no others
    return 1 - between / (own * others).sqrt().clamp_min(least)


def centred(rows_ND: torch.Tensor) -> torch.Tensor:
    """Take the mean row off every row."""
    return rows_ND - rows_ND.mean(0)
