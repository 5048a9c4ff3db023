"""Units between linear layers: rows of the writing layers, columns of the reading one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from agflow._utils.modules import linear_at, put
from agflow.models.channel_group import (
    CONSUMER,
    PRODUCER,
    THROUGH,
    Attribute,
    ChannelGroup,
    Member,
    Run,
)
from agflow.models.foreign_layers import kind_of
from agflow.models.group_weights import weights_of
from agflow.models.slicing import cut_group


@dataclass(frozen=True)
class LinearUnits:
    """The linear layers between which a module (an MLP, an attention) has its units.

    Attributes
    ----------
    writers : names of the ``nn.Linear`` inside the module whose outputs make the units, each with
        how many rows of units its outputs hold one after the other: 1, 2 for the gate and the value
        of a GLU, 3 for a fused qkv. All of a unit's rows are cut together.
    reader : name of the ``nn.Linear`` inside the module whose inputs the units are
    """

    writers: Mapping[str, int]
    reader: str

    def layer(
        self,
        name: str,
        group: str,
        module: nn.Module,
        *,
        tokens: int,
        unit_width: int = 1,
        attributes: tuple[Attribute, ...] = (),
    ) -> ChannelGroup:
        """Describe the group of channels that the module ``name`` of the model has.

        In those of the kind ``"heads"`` the products q·k and a·v count, too, and their
        number is not rounded to a multiple.

        Parameters
        ----------
        attributes : numbers of the model's modules that follow the number of units
        """
        channels = self.channels(module)
        weights = sum(weight.numel() for weight, _ in self.weights(module)) // channels
        biases = sum(
            rows
            for writer, rows in self.writers.items()
            if linear_at(module, writer).bias is not None
        )
        products = 2 * tokens if group == "heads" else 0
        return ChannelGroup(
            name,
            group,
            channels // unit_width,
            unit_width,
            unit_width * tokens * (weights + products),
            unit_width * (weights + biases),
            f"{name}.{self.reader}",
            rounds=group != "heads",
            members=self.members(name, module, unit_width),
            attributes=attributes,
        )

    def members(self, name: str, module: nn.Module, unit_width: int = 1) -> tuple[Member, ...]:
        """Where the units lie in the parameters of the module ``name`` of a model."""
        channels, place = self.channels(module), f"{name}." if name else ""
        found = []
        for writer, rows in self.writers.items():
            runs = tuple(Run(row * channels, unit_width) for row in range(rows))
            found.append(Member(f"{place}{writer}.weight", 0, PRODUCER, runs))
            if linear_at(module, writer).bias is not None:
                found.append(Member(f"{place}{writer}.bias", 0, THROUGH, runs))
        read = Member(f"{place}{self.reader}.weight", 1, CONSUMER, (Run(0, unit_width),))
        return (*found, read)

    def channels(self, module: nn.Module) -> int:
        """How many channels the units fill."""
        return linear_at(module, self.reader).in_features

    def refusal(self, module: nn.Module) -> str | None:
        """Why the units cannot be cut; None if they can."""
        present = dict(module.named_modules())
        return next(
            (
                f"{name} is {kind_of(present.get(name))}, expected a plain torch.nn.Linear"
                for name in (*self.writers, self.reader)
                if type(present.get(name)) is not nn.Linear
            ),
            None,
        )

    def weights(self, module: nn.Module) -> list[tuple[torch.Tensor, int]]:
        """As :meth:`agflow.models.Adapter.weights`."""
        return weights_of(module, self._channels_as_units(module))

    def cut(self, module: nn.Module, keep_C: torch.Tensor) -> None:
        """Keep only the channels ``keep_C`` (ascending int64)."""
        cut_group(module, self._channels_as_units(module), keep_C)

    def _channels_as_units(self, module: nn.Module) -> ChannelGroup:
        channels = self.channels(module)
        return ChannelGroup(
            "", "", channels, 1, 0, 0, self.reader, members=self.members("", module)
        )

    def resize(self, module: nn.Module, channels: int) -> None:
        """Change the number of channels; the new weights are not set."""
        for name, rows in self.writers.items():
            linear = linear_at(module, name)
            put(module, name, resized(linear, linear.in_features, rows * channels))
        reader = linear_at(module, self.reader)
        put(module, self.reader, resized(reader, channels, reader.out_features))


def resized(linear: nn.Linear, in_features: int, out_features: int) -> nn.Linear:
    """Make an uninitialised Linear of another size, else like ``linear``."""
    weight = linear.weight
    new = nn.utils.skip_init(
        nn.Linear,
        in_features,
        out_features,
        bias=linear.bias is not None,
        device=weight.device,
        dtype=weight.dtype,
    )
    new = cast(nn.Linear, new)
    new.weight.requires_grad_(weight.requires_grad)
    if linear.bias is not None:
        new.bias.requires_grad_(linear.bias.requires_grad)
    return new.train(linear.training)


@torch.no_grad()
def keep_outputs(linear: nn.Linear, keep: torch.Tensor) -> nn.Linear:
    """Make a Linear with the outputs ``keep`` of ``linear`` only."""
    new = resized(linear, linear.in_features, len(keep))
    new.weight.copy_(linear.weight[keep])
    if linear.bias is not None:
        new.bias.copy_(linear.bias[keep])
    return new
