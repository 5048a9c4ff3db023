"""What agflow needs to know of a model family: where its prunable units are, how to cut them, how to rebuild it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn


@dataclass(frozen=True)
class PrunableLayer:
    """A row of units that can be removed one by one.

    Attributes
    ----------
    name : the module that holds the units, such as ``"blocks.0.mlp"``
    group : ``"mlp"`` (hidden channels) or ``"heads"`` (attention heads)
    units : units present now
    unit_width : channels of the reader's input that one unit fills (1, or the width of a head)
    unit_macs : multiply-accumulates per image that leave with one unit
    unit_params : parameters that leave with one unit
    reader : name of the ``nn.Linear`` that reads the units; its input [B, T, units * unit_width] is Y
    parts : equal runs of units that must keep equal counts (the heads of a ``head_dim`` layer), else 1
    """

    name: str
    group: str
    units: int
    unit_width: int
    unit_macs: int
    unit_params: int
    reader: str
    parts: int = 1


class Adapter(ABC):
    """Knowledge of one model family. Stateless: a layer found in one model names the same place in its copies.

    The models map images [B, C, H, W] to logits [B, K], or to an object that has them as ``.logits``. A cut must leave
    the function that the model computes with the removed channels of Y set to zero.

    Attributes
    ----------
    family : short name, kept in expert folders
    models : the models it handles, in words for error messages
    """

    family: ClassVar[str]
    models: ClassVar[str]

    @abstractmethod
    def recognises(self, model: nn.Module) -> bool:
        """Whether ``model`` is of this family, even where :meth:`refusal` has a reason against it."""

    def refusal(self, model: nn.Module) -> str | None:
        """Why a model of this family cannot be handled; None when it can."""
        return None

    @abstractmethod
    def layers(self, model: nn.Module) -> list[PrunableLayer]:
        """Every prunable layer, in forward order."""

    @abstractmethod
    def weights(self, model: nn.Module, layer: PrunableLayer) -> list[tuple[torch.Tensor, int]]:
        """The 2-D weights attached to the layer's units, each with the axis the unit channels run along."""

    @abstractmethod
    def cut(self, model: nn.Module, layer: PrunableLayer, keep_U: torch.Tensor) -> None:
        """Keep only the units ``keep_U`` (ascending int64) of ``layer``, in place, with smaller modules."""

    def watchable(self, model: nn.Module) -> AbstractContextManager:
        """While entered, every layer's reader is called as a module, so that hooks on it see Y.

        To be overridden for models that use the reader's weight without calling it; on exit the model is what it was.
        """
        return nullcontext()

    @abstractmethod
    def input_size(self, model: nn.Module) -> tuple[int, int, int]:
        """Channels, height and width of the images the model takes."""

    @abstractmethod
    def macs(self, model: nn.Module) -> int:
        """Exact multiply-accumulates per image, both attention products included."""

    @abstractmethod
    def describe(self, model: nn.Module) -> dict[str, Any]:
        """JSON-ready description of the architecture, widths of cut layers included."""

    @abstractmethod
    def build(self, description: dict[str, Any]) -> nn.Module:
        """A model of that architecture; its weights are not set."""


def channels_of(units_U: torch.Tensor, unit_width: int) -> torch.Tensor:
    """Indices of the channels that the units fill, ascending when the units are."""
    return (units_U[:, None] * unit_width + torch.arange(unit_width)).flatten()


def macs_of_layers(layers: list[PrunableLayer]) -> int:
    """Multiply-accumulates per image of the layers as they are."""
    return sum(layer.units * layer.unit_macs for layer in layers)
