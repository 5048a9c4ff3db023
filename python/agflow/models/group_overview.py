"""What can be pruned of a model, and what stays and why, for people and for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from torch import nn

from agflow.models.account import examined
from agflow.models.callables import unwrapped
from agflow.models.channel_group import CONSUMER, PRODUCER, THROUGH, ChannelGroup, Member, Run
from agflow.models.registry import model_name

if TYPE_CHECKING:
    from agflow.models.tracing.kept import Kept

_SHOWN_RUNS = 4


@dataclass(frozen=True)
class GroupOverview:
    """The channel groups of a model; printed, what they consist of and what is kept.

    Attributes
    ----------
    model : name of the model
    image_size : channels, height and width at which units cost what they do
    groups : what can be pruned, in forward order
    kept : channels that stay, each with the reason; empty where an adapter names its groups itself
    """

    model: str
    image_size: tuple[int, int, int]
    groups: tuple[ChannelGroup, ...]
    kept: tuple[Kept, ...]

    def __str__(self) -> str:
        size = "x".join(map(str, self.image_size))
        lines = [f"{self.model} at {size}: {len(self.groups)} groups{_counts(self.groups)}"]
        for group in self.groups:
            lines += _lines(group)
        if self.kept:
            lines += ["kept as they are:", *(f"  {kept}" for kept in self.kept)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return {
            "model": self.model,
            "image_size": list(self.image_size),
            "groups": [{**asdict(group), **group.to_json()} for group in self.groups],
            "kept": [asdict(kept) for kept in self.kept],
        }


def describe_groups(model: nn.Module) -> GroupOverview:
    """Name the groups of channels that can be pruned, their members, and what is kept and why.

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import describe_groups
    >>> overview = describe_groups(agflow.load_model("example")[0])
    >>> len(overview.groups), overview.groups[0].kind, overview.kept
    (37, 'embed', ())
    """
    model = unwrapped(model)
    adapter = examined(model)
    return GroupOverview(
        model_name(model),
        adapter.input_size(model),
        tuple(adapter.layers(model)),
        tuple(adapter.kept(model)),
    )


def _counts(groups: Sequence[ChannelGroup]) -> str:
    kinds = [group.kind for group in groups]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    return f" ({counted})" if counted else ""


def _lines(group: ChannelGroup) -> list[str]:
    """A group and, below it, its members by role, its attributes and what a cut multiplies."""
    parts = f" in {group.parts} parts" if group.parts > 1 else ""
    width = f" of {group.unit_width} channels" if group.unit_width > 1 else ""
    units = f"{group.units} unit{'s' if group.units > 1 else ''}{width}{parts}"
    lines = [
        f"{group.name}: {group.kind}, {units}, each {group.unit_macs:,} MACs and "
        f"{group.unit_params:,} parameters"
    ]
    for role in (PRODUCER, THROUGH, CONSUMER):
        places = _places(group.of(role))
        if places:
            lines.append(f"  {role:<9} {', '.join(places)}")
    if group.attributes:
        named = (
            f"{of.module}.{of.name}".removeprefix(".")
            + ("" if of.place is None else f"[{of.place}]")
            for of in group.attributes
        )
        lines.append(f"  attribute {', '.join(named)}")
    if group.scaled:
        lines.append(f"  scaled    {', '.join(_places(group.scaled))}")
    return lines


def _places(members: Sequence[Member]) -> list[str]:
    """Parameters with the axis of the units, those of one module together: ``bn1.weight+bias[0]``.

    Where the units do not fill an axis in order, it is said where they begin.
    """
    names: dict[tuple, list[str]] = {}
    for member in members:
        place = member.module, member.axis, member.runs
        names.setdefault(place, []).append(member.name.rpartition(".")[2])
    return [
        f"{module}.{'+'.join(of)}[{axis}]{_begins(runs)}".removeprefix(".")
        for (module, axis, runs), of in names.items()
    ]


def _begins(runs: tuple[Run, ...]) -> str:
    if runs == (Run(0),):
        return ""
    begins = [run.first + k * run.period for run in runs for k in range(run.repeats)]
    more = "+…" if len(begins) > _SHOWN_RUNS else ""
    return f" from {'+'.join(map(str, begins[:_SHOWN_RUNS]))}{more}"
