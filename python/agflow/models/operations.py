"""Multiply-accumulates of any model, counted from the operations that one image needs.

Shape suffixes: B images.
"""

from __future__ import annotations

import torch
from torch import nn

from agflow.errors import UnsupportedModelError
from agflow.models.callables import unwrapped
from agflow.models.counting import counted_macs
from agflow.models.forward import model_logits
from agflow.models.registry import adapter_for, model_name


def model_macs(model: nn.Module, images_BCHW: torch.Tensor) -> int:
    """Count the multiply-accumulates per image of any model.

    Where a family declares the model, that is :func:`agflow.count_macs`. Others run one image under
    torch's counter of floating-point operations, two of which are one multiply-accumulate:
    convolutions, linear layers and both products of attention count, norms and activations do not.

    Parameters
    ----------
    images_BCHW : of which the first one runs through a model that no family declares

    Raises
    ------
    UnsupportedModelError
        The model does not compute in torch, or with operations that torch's counter leaves out.
    ShapeError
        The images do not fit the model.

    Examples
    --------
    >>> import torch
    >>> from agflow.models import model_macs
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 10))
    >>> model_macs(model, torch.zeros(1, 3, 4, 4))
    480
    """
    model = unwrapped(model)
    try:
        adapter = adapter_for(model)
    except UnsupportedModelError:
        adapter = None
    if adapter is None or adapter.any_size:
        return counted_macs(model, lambda: model_logits(model, images_BCHW[:1]), model_name(model))
    return adapter.macs(model)
