"""Where the units of a class can be seen while the model runs: what enters and leaves its layers.

A hook sees the tensor that enters a module or leaves it, of any shape. Along which of its axes the
units lie, and at which places of it, is read off the graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import fx, nn

from agflow.models.channel_group import Run, Tap
from agflow.models.tracing.axes import Leaf, size
from agflow.models.tracing.groups import ChannelClass
from agflow.models.tracing.reached import UNREACHED, reached_nodes
from agflow.models.tracing.runs import runs_of
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import (
    Use,
    callers,
    calls_in,
    dims_of,
    entering,
    leaving,
)

UNSEEN = (
    "no layer of torch takes or gives them in one axis, where they could be scored: let one "
    "(nn.Conv2d, nn.BatchNorm2d, nn.ReLU) make or read them"
)


@dataclass(frozen=True)
class Sight:
    """Where units are seen.

    Attributes
    ----------
    reader : the layer that reads them last, empty where none does
    taps : what they fill there, several where they lie there several times
    unit_width : channels of a unit at each tap
    """

    reader: str
    taps: tuple[Tap, ...]
    unit_width: int


class Sights:
    """What can be seen at the layers of a traced model."""

    def __init__(self, model: nn.Module, tracer: Tracer):
        self._model, self._tracer, self._calls = model, tracer, calls_in(tracer.program)
        self._reached = reached_nodes(tracer.program)
        layers = [
            name
            for name, calls in self._calls.items()
            if _is_of_torch(model.get_submodule(name))
            and not any(self._reached.isdisjoint(nodes) for nodes in calls)
        ]
        self._layers = [name for name in layers if len(self._calls[name]) == 1]
        self._repeated = [name for name in layers if name not in self._layers]

    def of(self, held: ChannelClass) -> Sight | None:
        """Where a class is seen: at the layer that reads it last, or the last that it passes.

        Those that run several times, in which units are seen each time, come after all others. None
        where it passes none.
        """
        readers = [callers(use.node)[-1] for use in reversed(held.consumed) if self._is_reader(use)]
        sides = [(name, "input") for name in readers]
        passed = (*reversed(self._layers), *reversed(self._repeated))
        sides += [(name, side) for name in passed for side in ("output", "input")]
        for name, side in sides:
            taps, width = self._at(name, side, held.leaf)
            if taps:
                return Sight(name if name in readers else next(iter(readers), ""), taps, width)
        return None

    def reason(self, held: ChannelClass) -> str:
        """Why a class is seen nowhere."""
        reached = any(use.node in self._reached for use in held.produced)
        return UNSEEN if reached else UNREACHED

    def of_parts(self, parts: Sequence[ChannelClass]) -> Sight | None:
        """Where classes of equal size are seen one after the other; None where they are nowhere."""
        for name in reversed(self._layers):
            for side in ("output", "input"):
                sight = self._joined([self._at(name, side, held.leaf) for held in parts])
                if sight is not None:
                    return sight
        return None

    def beside(self, name: str, side: str, channels: Sequence[int]) -> tuple[tuple[Tap, ...], int]:
        """Taps that show channels of a layer one after the other, and the rows there.

        None where it is no layer of torch that runs once, or most channels would need a tap each.
        """
        if name not in self._layers:
            return (), 0
        (nodes,) = self._calls[name]
        value = self._value(side, nodes)
        if value is None:
            return (), 0
        axis = -1 if isinstance(self._model.get_submodule(name), nn.Linear) else 1
        taps: list[Tap] = []
        for channel in channels:
            if taps and channel == taps[-1].first + (taps[-1].count or 0):
                taps[-1] = replace(taps[-1], count=channel + 1 - taps[-1].first)
            else:
                taps.append(Tap(name, side, channel, 1, axis))
        shape = value.meta["val"].shape
        found = tuple(taps) if 2 * len(taps) <= len(channels) else ()
        return found, shape.numel() // shape[axis]

    def _joined(self, seen: Sequence[tuple[tuple[Tap, ...], int]]) -> Sight | None:
        """The one tap of parts that each have one, where each begins at the end of the last."""
        if any(len(taps) != 1 for taps, _ in seen):
            return None
        (first,), width = seen[0]
        count = first.count
        ends = [replace(first, first=first.first + k * (count or 0)) for k in range(len(seen))]
        if count is None or [tap for (tap,), _ in seen] != ends or {w for _, w in seen} != {width}:
            return None
        return Sight("", (replace(first, count=len(seen) * count),), width)

    def _is_reader(self, use: Use) -> bool:
        """Whether the contraction is the one call of a layer, which sums over all that enters.

        Nothing else reads its weight: what is fitted to this reader would change the other.
        """
        name = callers(use.node)[-1]
        whole = name in self._layers and use.parameters == (f"{name}.weight",) and use.groups == 1
        return whole and self._tracer.reads[f"{name}.weight"] == 1

    def _value(self, side: str, nodes: list[fx.Node]) -> fx.Node | None:
        """The one value on a side of a call, which these nodes are."""
        return entering(nodes, self._tracer) if side == "input" else leaving(nodes)

    def _at(self, module: str, side: str, leaf: Leaf) -> tuple[tuple[Tap, ...], int]:
        """The taps of a class on one side of a module, and the channels of a unit at each.

        None where they differ from call to call.
        """
        of_calls = [self._at_call(module, side, leaf, nodes) for nodes in self._calls[module]]
        return of_calls[0] if all(other == of_calls[0] for other in of_calls) else ((), 1)

    def _at_call(
        self, module: str, side: str, leaf: Leaf, nodes: list[fx.Node]
    ) -> tuple[tuple[Tap, ...], int]:
        """Those of one call, which these nodes are."""
        value = self._value(side, nodes)
        dims = [] if value is None else dims_of(self._tracer, value)
        of_axis = {axis: runs for axis, dim in enumerate(dims) if (runs := runs_of(dim, leaf))}
        widths = {run.width for runs in of_axis.values() for run in runs}
        if len(of_axis) != 1 or 0 in of_axis or len(widths) != 1:
            return (), 1
        ((axis, runs),) = of_axis.items()
        (width,) = widths
        firsts = [first for run in runs for first in _firsts(run)]
        count = width * leaf.extent
        channels = None if count == size(dims[axis]) else count
        last = axis == len(dims) - 1
        taps = (Tap(module, side, first, channels, -1 if last else axis) for first in firsts)
        return tuple(taps), width


def _firsts(run: Run) -> Iterator[int]:
    """Where a run's units begin, each time that they are repeated."""
    return (run.first + repeat * run.period for repeat in range(run.repeats))


def _is_of_torch(module: nn.Module) -> bool:
    """Whether it is one of torch's own layers, or a convolution or linear layer made of one."""
    torch_own = type(module).__module__.startswith("torch.nn.modules.")
    contracts = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    return (torch_own or contracts) and not any(module.children())
