"""What can be pruned, as data: groups of channels, and where their units lie in the parameters.

Shape suffixes: U kept units, S the size of a parameter's axis.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

PRODUCER, CONSUMER, THROUGH = "producer", "consumer", "through"
"""Roles of a member: it emits the units, contracts them, or lets each pass by itself."""

KINDS = "mlp", "heads", "head_dim", "embed", "conv", "stage", "block"
"""Labels of the groups of agflow's own adapters; those of others may have labels of their own."""


@dataclass(frozen=True)
class Tap:
    """A place where the channels of units can be observed while the model runs.

    Attributes
    ----------
    module : name of the module whose input or output carries them
    side : ``"input"`` or ``"output"``
    first, count : the channels that are the units'; ``count`` None is all from ``first`` on
    axis : of the channels: -1 in tokens [B, T, C], 1 in maps [B, C, H, W]
    """

    module: str
    side: str = "input"
    first: int = 0
    count: int | None = None
    axis: int = -1

    @property
    def channels(self) -> slice:
        """The channels as a slice."""
        return slice(self.first, None if self.count is None else self.first + self.count)


@dataclass(frozen=True)
class Run:
    """Positions along an axis: unit u fills ``first + r * period + (u - unit) * width + i``.

    For all r below ``repeats`` and all i below ``width``. A run holds all units of its group, or
    ``count`` of them from ``unit`` on, as that of one part does.
    """

    first: int
    width: int = 1
    repeats: int = 1
    period: int = 0
    unit: int = 0
    count: int | None = None

    def size(self, units: int) -> int:
        """How many of a group's units it holds.

        Examples
        --------
        >>> from agflow.models.channel_group import Run
        >>> Run(0).size(8), Run(0, unit=4, count=4).size(8)
        (8, 4)
        """
        return units if self.count is None else self.count

    def to_json(self) -> list[int]:
        """Its numbers in the order of the attributes, the last two where they say something."""
        numbers = [self.first, self.width, self.repeats, self.period]
        return numbers if self.count is None else [*numbers, self.unit, self.count]


@dataclass(frozen=True)
class Member:
    """A parameter or buffer that holds units of a group along one of its axes.

    Attributes
    ----------
    name : of the parameter or buffer: ``"layer1.0.conv1.weight"``
    axis : that the units lie along
    role : ``"producer"``, ``"consumer"`` or ``"through"`` (biases, norms, depthwise convolutions)
    runs : the index map: where each unit lies along the axis
    """

    name: str
    axis: int
    role: str
    runs: tuple[Run, ...] = (Run(0),)

    @property
    def module(self) -> str:
        """Name of the module that the parameter belongs to."""
        return self.name.rpartition(".")[0]

    def unit_of(self, size: int, units: int) -> torch.Tensor:
        """The unit at each position of the axis, -1 where there is none: int64 [S].

        Parameters
        ----------
        size : of the axis
        units : of the group

        Examples
        --------
        >>> from agflow.models.channel_group import Member, Run
        >>> Member("qkv.weight", 0, "producer", (Run(0, 2), Run(6, 1))).unit_of(8, 2).tolist()
        [0, 0, 1, 1, -1, -1, 0, 1]
        """
        units_S = torch.full((size,), -1, dtype=torch.int64)
        for run in self.runs:
            of_run = torch.arange(run.unit, run.unit + run.size(units)).repeat_interleave(run.width)
            for repeat in range(run.repeats):
                first = run.first + repeat * run.period
                units_S[first : first + len(of_run)] = of_run
        return units_S

    def kept(self, size: int, units: int, keep_U: torch.Tensor) -> torch.Tensor:
        """The positions of the axis that stay, int64 ascending: those of kept units or of none."""
        stays = torch.zeros(units + 1, dtype=torch.bool)  # the last is that of no unit, -1
        stays[keep_U] = stays[-1] = True
        return stays[self.unit_of(size, units)].nonzero().flatten()

    def to_json(self) -> dict[str, Any]:
        """As the metadata ``agflow.channel_groups`` holds it."""
        runs = [run.to_json() for run in self.runs]
        return {"name": self.name, "axis": self.axis, "role": self.role, "runs": runs}


@dataclass(frozen=True)
class Norm:
    """Code that takes means over the units, and so has other ones when units are gone.

    Such a mean is over the kept units alone, in the pruned model as in its masked reference.

    Attributes
    ----------
    module : name of the module that does nothing else, or None where it is no module by itself:
        there only the graph says where the means are
    axis : that the units lie along, in what enters and what leaves it
    runs : where each unit lies along the axis
    steps : the nodes of the traced graph that take the means, by name, each with the axis of its
        input
    """

    module: str | None
    axis: int
    runs: tuple[Run, ...]
    steps: tuple[tuple[str, int], ...]

    def kept(self, size: int, units: int, keep_U: torch.Tensor) -> torch.Tensor:
        """The positions of the axis that stay, as :meth:`Member.kept` gives them."""
        return Member("", self.axis, THROUGH, self.runs).kept(size, units, keep_U)


@dataclass(frozen=True)
class Attribute:
    """A number that Python code computes with and that follows the number of units.

    The sizes of torch's own layers (``in_channels``, ``num_features``, …) need none: they follow
    the shapes of their parameters.

    Attributes
    ----------
    module, name : of the attribute
    place : index in it where it is a tuple or list, else None
    per_unit : what a removed unit takes off the value; None where the value is proportional to the
        number of units, and a cut scales it
    """

    module: str
    name: str
    place: int | None = None
    per_unit: int | None = None

    def after(self, value: int, units: int, kept: int) -> int:
        """The value when ``kept`` of ``units`` units are left.

        Examples
        --------
        >>> from agflow.models.channel_group import Attribute
        >>> Attribute("attn", "attn_dim").after(192, units=3, kept=2)
        128
        """
        if self.per_unit is None:
            return value * kept // units  # a width per part is no multiple of all units
        return value - self.per_unit * (units - kept)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of a model that are removed together, unit by unit.

    Attributes
    ----------
    name : the module that holds the units, such as ``"blocks.0.mlp"``, or a name below it:
        ``"blocks.0.attn.qk"``
    kind : a label for people, by which they choose: ``"mlp"`` (hidden channels), ``"heads"``
        (attention heads), ``"head_dim"`` (channels of the values inside the heads, or pairs of a
        query and a key channel, or both where code has one width for them), ``"embed"`` (channels
        of the residual stream of a transformer), ``"conv"`` (channels between convolutions),
        ``"stage"`` (channels of a residual stream of maps or tokens) or ``"block"`` (a residual
        branch, which is one unit)
    units : units present now
    unit_width : channels of Y that one unit fills (the width of a head for heads, of the stream for
        a branch, else 1)
    unit_macs : multiply-accumulates per image that leave when this one unit does
    unit_params : parameters that leave with it
    reader : name of the layer that reads the units and whose input is Y. Empty where units go
        without a repair: pairs of query and key, stream channels and branches
    parts : equal runs of units that must keep equal counts (the heads of a ``head_dim`` layer,
        once for pairs and once for values where it has both), else 1
    taps : where Y is seen if not at the reader's input; rows of several places are one Y, or, where
        each place has some of the units, the channels of all of them side by side
    rounds : whether kept counts are rounded to a multiple (``round_to``); whole heads and branches
        are not
    may_vanish : whether all units may go (a residual branch)
    residual : whether what reads the units is added to a residual stream of maps, which carries on
        without them
    members : where the units lie in parameters and buffers
    attributes : numbers of modules that follow the number of units
    norms : where means over the units are taken
    scaled : members of which a cut multiplies the units that it keeps by the root of their share:
        queries, where code divides their products with keys by the root of the width that it finds
    """

    name: str
    kind: str
    units: int
    unit_width: int
    unit_macs: int
    unit_params: int
    reader: str
    parts: int = 1
    taps: tuple[Tap, ...] = ()
    rounds: bool = True
    may_vanish: bool = False
    residual: bool = False
    members: tuple[Member, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    norms: tuple[Norm, ...] = ()
    scaled: tuple[Member, ...] = ()

    @property
    def seen_at(self) -> tuple[Tap, ...]:
        """Where Y can be observed: the taps, or the reader's input."""
        return self.taps or (Tap(self.reader),)

    @property
    def side_by_side(self) -> bool:
        """Whether each tap has some of the units, one after the other."""
        counts = [tap.count for tap in self.taps]
        whole = self.units * self.unit_width
        return len(counts) > 1 and all(count is not None and count < whole for count in counts)

    def of(self, role: str) -> tuple[Member, ...]:
        """The members of a role."""
        return tuple(member for member in self.members if member.role == role)

    def to_json(self) -> dict[str, Any]:
        """Label, properties, members and attributes, as ``agflow.channel_groups`` holds them."""
        return {
            "kind": self.kind,
            "rounds": self.rounds,
            "may_vanish": self.may_vanish,
            "residual": self.residual,
            "members": [member.to_json() for member in self.members],
            "attributes": [asdict(attribute) for attribute in self.attributes],
        }


def channels_of(units_U: torch.Tensor, unit_width: int) -> torch.Tensor:
    """Indices of the channels that the units fill, ascending when the units are.

    Parameters
    ----------
    units_U : int64 [U]
    unit_width : channels of a unit

    Returns
    -------
    int64 [U * unit_width]

    Examples
    --------
    >>> import torch
    >>> from agflow.models import channels_of
    >>> channels_of(torch.tensor([0, 2]), 3)
    tensor([0, 1, 2, 6, 7, 8])
    """
    return (units_U[:, None] * unit_width + torch.arange(unit_width)).flatten()
