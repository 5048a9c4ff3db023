"""The weights attached to prunable units, for criteria that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

from agflow._core import arrow
from agflow._core.loader import core
from agflow.models import (
    Adapter,
    ChannelGroup,
)

Weight = tuple[int, int, int, torch.Tensor]
"""(layer index, number within the layer, unit axis, weight [R, C])."""


def attached_weights(
    adapter: Adapter,
    model: nn.Module,
    layers: list[ChannelGroup],
    as_it_is: Callable[..., torch.Tensor] = torch.eye,
) -> Iterator[Weight]:
    """The weights attached to the units of the layers, on the CPU.

    Nothing weighs a residual branch where it enters the stream: ``as_it_is(width, width)`` stands
    for the weights that read it. Of a branch without members (a traced one, which may end with a
    norm) no weights are attached.
    """
    for index, layer in enumerate(layers):
        attached = [
            (weight_RC.detach().cpu().contiguous(), unit_axis)
            for weight_RC, unit_axis in adapter.weights(model, layer)
        ]
        if layer.may_vanish and attached:
            attached.append(
                (as_it_is(layer.unit_width, layer.unit_width, dtype=attached[0][0].dtype), 1)
            )
        for number, (weight_RC, unit_axis) in enumerate(attached):
            yield index, number, unit_axis, weight_RC


def add_weights(session: int, weights: Iterable[Weight]) -> None:
    """Add the weights to a statistics session."""
    for index, _, unit_axis, weight_RC in weights:
        arrow.brief_call(
            core().statistics_add_weight,
            session,
            index,
            unit_axis,
            arrow.matrix(weight_RC, "weight"),
        )


def add_weight_gradients(
    session: int, weights: Iterable[Weight], gradients: Iterable[Weight]
) -> None:
    """Add weight gradients, in the order of the weights, to a statistics session."""
    for (index, _, unit_axis, weight_RC), (*_, gradient_RC) in zip(weights, gradients, strict=True):
        arrow.brief_call(
            core().statistics_add_weight_gradient,
            session,
            index,
            unit_axis,
            arrow.matrix(weight_RC, "weight"),
            arrow.matrix(gradient_RC, "weight gradient"),
        )
