"""Gradients of the weights attached to prunable units, summed over batches."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import nn

from agflow.models import Adapter, ChannelGroup
from agflow.models.channel_group import CONSUMER, PRODUCER
from agflow.models.copying import copy_of


class WeightGradients:
    """Sums of weight gradients over batches, kept beside the model's own ``.grad``.

    While entered, ``.grad`` of the attached parameters holds the last batch alone, and
    :meth:`add_batch` adds it to the sums.

    The sums are float32, or float64 for such models: sixteen bits would lose small batches. On exit
    the parameters have the ``.grad`` again that they had.
    """

    def __init__(self, adapter: Adapter, model: nn.Module, layers: Sequence[ChannelGroup]):
        self._model = model
        self._of_layer = [
            _parameters_behind(model, layer, adapter.weights(model, layer)) for layer in layers
        ]
        self.parameters = list(
            dict.fromkeys(parameter for parameters in self._of_layer for parameter in parameters)
        )
        self._totals = {
            parameter: torch.zeros_like(
                parameter,
                dtype=torch.promote_types(parameter.dtype, torch.float32),
                requires_grad=False,
            )
            for parameter in self.parameters
        }

    def __enter__(self) -> WeightGradients:
        self._before = [parameter.grad for parameter in self.parameters]
        self._clear()
        return self

    def __exit__(self, *_) -> None:
        for parameter, gradient in zip(self.parameters, self._before, strict=True):
            parameter.grad = gradient

    def add_batch(self, left_out: Collection[int]) -> None:
        """Add the last batch's gradients, but for the layers whose index is in ``left_out``."""
        without = {
            parameter for index in left_out if self._of_layer for parameter in self._of_layer[index]
        }
        for parameter in self.parameters:
            if parameter not in without:
                gradient = parameter.grad
                assert gradient is not None  # the layer was in the forward pass
                self._totals[parameter] += gradient
        self._clear()

    def as_model(self) -> nn.Module:
        """A copy of the model with the sums in place of its weights, for an adapter to read."""
        stand_ins = {
            id(parameter): self._totals.get(parameter, parameter)
            for parameter in self._model.parameters()
        }
        # What the memo names is taken from there, and not copied.
        return copy_of(self._model, stand_ins)

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


def _parameters_behind(
    model: nn.Module, layer: ChannelGroup, weights: list[tuple[torch.Tensor, int]]
) -> list[nn.Parameter]:
    """The parameters that the weights are, are views of, or, as members, were gathered from."""
    memory = {weight.untyped_storage().data_ptr() for weight, _ in weights}
    members = {member.name for member in (*layer.of(PRODUCER), *layer.of(CONSUMER))}
    return [
        parameter
        for name, parameter in model.named_parameters()
        if name in members or parameter.untyped_storage().data_ptr() in memory
    ]
