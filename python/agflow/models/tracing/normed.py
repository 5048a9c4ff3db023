"""Norms over units: where means over the units of a class are taken, over fewer in a cut model.

The means of a cut model are over the channels that are left. That is proven against a whole model
that does the same. A norm that is a module by itself (one tensor enters and leaves, with the units
along the same axis, and every weight lies along it) runs on these channels alone there; where some
other code takes means, the whole model is run by its graph.
"""

# torch.fx types the arguments of a node as whatever an operator may take.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections import Counter

from torch import fx

from agflow.models.channel_group import Norm
from agflow.models.tracing.axes import Dim, Leaf, atoms, flat
from agflow.models.tracing.runs import runs_of
from agflow.models.tracing.tracer import Tracer
from agflow.models.tracing.uses import call_counts, callers, dims_of, entering, leaving, nodes_in

TAKES_MEANS = "a norm takes mean and variance over them"


class Norms:
    """The norms of a traced network."""

    def __init__(self, tracer: Tracer):
        self._tracer = tracer
        self._inside: dict[str, list[fx.Node]] = nodes_in(tracer.program)
        self._calls: Counter[str] = call_counts(tracer.program)

    def by_class(self) -> dict[Leaf, tuple[Norm, ...]]:
        """For each class of which means are taken, the norms that do it."""
        steps: dict[Leaf, dict[str, list[tuple[fx.Node, int, Dim]]]] = {}
        for node, axis, dim in self._tracer.norms:
            module = (callers(node) or [""])[-1]
            for leaf in dict.fromkeys(atoms(dim)):
                steps.setdefault(leaf, {}).setdefault(module, []).append((node, axis, dim))
        return {
            leaf: tuple(
                norm
                for module, nodes in modules.items()
                for norm in self._norms(module, leaf, nodes)
            )
            for leaf, modules in steps.items()
        }

    def _norms(self, module: str, leaf: Leaf, nodes: list[tuple[fx.Node, int, Dim]]) -> list[Norm]:
        alone = self._norm(module, leaf, nodes)
        if alone is not None:
            return [alone]
        return [
            Norm(None, axis, runs_of(dim, leaf), ((node.name, axis),)) for node, axis, dim in nodes
        ]

    def _norm(self, module: str, leaf: Leaf, nodes: list[tuple[fx.Node, int, Dim]]) -> Norm | None:
        if self._calls[module] != 1 or not self._tracer.is_norm(nodes[0][0]):
            return None
        inside = self._inside[module]
        entered, left = entering(inside, self._tracer), leaving(inside)
        if entered is None or left is None:
            return None
        before, behind = (dims_of(self._tracer, node) for node in (entered, left))
        axes = [axis for axis, dim in enumerate(before) if leaf in atoms(dim)]
        if axes != [axis for axis, dim in enumerate(behind) if leaf in atoms(dim)]:
            return None
        whole = [flat(before[axis]) for axis in axes]
        if len(axes) != 1 or any(flat(dim) != whole[0] for _, _, dim in nodes):
            return None
        places = tuple((node.name, axis) for node, axis, _ in nodes)
        return Norm(module, axes[0], runs_of(before[axes[0]], leaf), places)
