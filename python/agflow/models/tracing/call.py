"""A call of an operator in a traced graph, as a rule sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from agflow.models.tracing import axes
from agflow.models.tracing.axes import Dim, Reason

if TYPE_CHECKING:
    from agflow.models.tracing.tracer import Tracer

Dims = list[Dim]
Value = Dims | tuple[Dims | None, ...] | None
"""Of a tensor, of several, or of something else."""


def operator_name(node: torch.fx.Node) -> str:
    """``"aten.relu"`` for each overload of it, in place or not."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = str(target.overloadpacket)
        return name[:-1] if name.endswith("_") and not name.endswith("__") else name
    return getattr(target, "__name__", str(target))


class Call:
    """The arguments of a call by name, the axes of its tensors, and what a rule does with them.

    Attributes
    ----------
    node : of the graph
    name : of the operator: ``"aten.conv2d"``
    overload : of the operator: ``"default"``
    reason : what is said of axes that this call freezes
    """

    def __init__(self, tracer: Tracer, node: torch.fx.Node):
        self.node, self._tracer = node, tracer
        self.name = operator_name(node)
        self.overload = getattr(node.target, "_overloadname", "")
        self.reason = Reason(self.name, f"read by {self.name}")
        self._arguments = self._by_name()

    def _by_name(self) -> dict[str, Any]:
        schema = getattr(self.node.target, "_schema", None)
        if schema is None:
            return {str(i): value for i, value in enumerate(self.node.args)}
        names = [argument.name for argument in schema.arguments]
        given = {**dict(zip(names, self.node.args, strict=False)), **self.node.kwargs}
        defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
        return {name: given.get(name, defaults.get(name)) for name in names}

    def __contains__(self, argument: str) -> bool:
        """Whether the operator has an argument of the name."""
        return argument in self._arguments

    def __getitem__(self, argument: str) -> Any:
        return self._arguments[argument]

    def get(self, argument: str) -> Any:
        """An argument, or None where the operator has none of the name."""
        return self._arguments.get(argument)

    def dims(self, argument: str) -> Dims:
        """The axes of an argument; none where it is not a tensor."""
        return self.dims_of(self[argument])

    def dims_of(self, value: Any) -> Dims:
        """The axes of a node's tensor."""
        found = self._tracer.values.get(value) if isinstance(value, torch.fx.Node) else None
        return found if isinstance(found, list) else []

    @property
    def tensors(self) -> list[torch.fx.Node]:
        """The arguments that are tensors, lists of tensors left out."""
        return [v for v in self._arguments.values() if isinstance(v, torch.fx.Node)]

    @property
    def first(self) -> Dims:
        """The axes of the first argument."""
        return self.dims_of(next(iter(self._arguments.values())))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result, or of the first of several."""
        return self.shapes[0]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the results."""
        value = self.node.meta.get("val")
        values = value if isinstance(value, (tuple, list)) else [value]
        return [tuple(v.shape) if isinstance(v, torch.Tensor) else () for v in values]

    def results(self, dims: Dims) -> Value:
        """The same axes for the result, or for each of several."""
        value = self.node.meta.get("val")
        return tuple(dims for _ in value) if isinstance(value, (tuple, list)) else dims

    def unify(self, a: Dim, b: Dim) -> None:
        """Let two axes have the same units."""
        axes.unify(a, b, self.reason)

    def freeze(self, *dims: Dim) -> None:
        """Let all units of axes stay."""
        for dim in dims:
            axes.freeze(dim, self.reason)

    def fixed(self, size: int) -> Dim:
        """A new axis, none of whose places is a unit."""
        return axes.new(size, self.reason)

    def places(self, size: int) -> Dim:
        """A new axis of places that the operator makes, such as those of a map."""
        return axes.new(size, Reason(self.name, f"places of {self.name}"))

    def view(self, dims: Dims, sizes) -> Dims:
        """The axes after a reshape."""
        return axes.view(dims, sizes, self.reason)

    def contract(self, dim: Dim, weight: Any, own: Dim) -> None:
        """An axis of the input is summed over with one of a weight, its own."""
        self.unify(dim, own)
        self._tracer.contract(self.name, weight, own)

    def norm(self, axis: int) -> None:
        """Note that means are taken over an axis of the first argument, and nothing else."""
        self._tracer.norms.append((self.node, axis, self.first[axis]))

    @property
    def in_norm(self) -> bool:
        """Whether it runs in a module that has nothing but weights along one axis."""
        return self._tracer.is_norm(self.node)

    def emit(self, weight: Any, axis: int) -> Dim:
        """The axis of a weight that gives the result's channels."""
        return self._tracer.emit(weight, self.dims_of(weight)[axis])

    def is_weight(self, value: Any) -> bool:
        """Whether an argument is computed from parameters and buffers alone."""
        return value in self._tracer.parameters_of
