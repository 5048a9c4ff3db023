"""Axes of all tensors of a network, unified along the graph that torch.export gives."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import torch
from torch.export.graph_signature import OutputKind

from agflow.models.tracing import axes
from agflow.models.tracing.axes import Dim, Reason
from agflow.models.tracing.barriers import Barrier, barriers_of
from agflow.models.tracing.call import Call, Dims, Value, operator_name
from agflow.models.tracing.rules import rule_of

INPUT = Reason("", "an axis of the images")
OUTPUT = Reason("", "part of the output")
CLASSES = Reason("", "the classes")
CONSTANT = Reason("", "met by a constant of the code")
TWICE = Reason("", "two factors of one axis")

_MOVES = {
    "getitem",
    *(
        f"aten.{name}"
        for name in (
            "view reshape flatten unflatten squeeze unsqueeze view_as reshape_as _unsafe_view t "
            "permute transpose swapaxes swapdims movedim numpy_T mT to _to_copy contiguous clone "
            "alias detach div neg expand expand_as slice narrow select split chunk unbind"
        ).split()
    ),
}
"""Operators after which the entries of a weight that are zero still are, as after products."""
_SHAPED = {
    f"aten.{name}" for name in "new_zeros new_ones new_full zeros_like ones_like full_like".split()
}
"""Operators that look at the shape of their tensor alone."""


class Tracer:
    """The axes of a network's tensors: which units go together, and which stay.

    Attributes
    ----------
    program : the graph
    parameters : the axes of each parameter and buffer, by name
    values : the axes of each node's tensor, or a tuple of them where it has several
    barriers : channels that stay, by the parameter that emits them
    consumed : (parameter, axis) that a convolution or a product sums over
    emitted : (parameter, axis) that give the channels of a convolution's or product's result
    parameters_of : for nodes that depend on no image: the parameters that they are computed from
    unknown : operators without a rule, and how often each was met
    norms : nodes that take means over one axis of their first argument, the axis, and what it is
    reads : by parameter and buffer, how many operators take it
    """

    def __init__(self, program: torch.export.ExportedProgram):
        self.program = program
        self.parameters: dict[str, Dims] = {}
        self.values: dict[torch.fx.Node, Value] = {}
        self.parameters_of: dict[torch.fx.Node, tuple[str, ...]] = {}
        self.unknown: dict[str, int] = {}
        self.norms: list[tuple[torch.fx.Node, int, Dim]] = []
        self.reads: Counter[str] = Counter()
        self._zeros_of: dict[torch.fx.Node, tuple[str, ...]] = {}
        self._contractions: list[tuple[tuple[str, ...], Dim, Reason]] = []
        self._emissions: list[tuple[tuple[str, ...], Dim]] = []
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "call_function":
                self._call(node)
            else:
                self.values[node] = None  # the output, and graphs inside of operators
        self._outputs()
        self._freeze_repeated()
        self.consumed = self._consumed()
        self.emitted = {at for names, dim in self._emissions for at in self._places(names, dim)}
        self.barriers: list[Barrier] = barriers_of(self.parameters, self.emitted)

    def _placeholder(self, node: torch.fx.Node) -> None:
        value, signature = node.meta.get("val"), self.program.graph_signature
        if not isinstance(value, torch.Tensor):
            return
        name = signature.inputs_to_parameters.get(node.name) or signature.inputs_to_buffers.get(
            node.name
        )
        if name is not None:
            same = self._tied(name)
            dims = self.parameters[same] if same else [axes.new(n) for n in value.shape]
            self.values[node] = self.parameters[name] = dims
            self.parameters_of[node] = (name,)
            self._zeros_of[node] = (name,)
            self.reads[name] += len(node.users)
        elif node.name in signature.inputs_to_lifted_tensor_constants:
            self.values[node] = [axes.new(n, CONSTANT) for n in value.shape]
            self.parameters_of[node] = ()
        else:
            self.values[node] = [axes.new(n, INPUT) for n in value.shape]

    def _tied(self, name: str) -> str | None:
        """An earlier name of the same tensor."""
        state = self.program.state_dict
        if name not in state:
            return None
        return next((n for n in self.parameters if state.get(n) is state[name]), None)

    def _call(self, node: torch.fx.Node) -> None:
        name = operator_name(node)
        if name == "getitem":
            inputs, place = node.all_input_nodes, cast(int, node.args[1])
            values = self.values.get(inputs[0])
            self.values[node] = values[place] if isinstance(values, tuple) else None
        else:
            call, inputs = Call(self, node), node.all_input_nodes
            rule = rule_of(call)
            self.values[node] = _applied(rule, call) if rule else None
            if not _fits(self.values[node], node.meta.get("val")):
                self._stop(call)
        self._note_parameters(node, name, inputs)

    def _note_parameters(self, node: torch.fx.Node, name: str, inputs: list) -> None:
        """Which parameters a tensor comes from, and for which of them zeros stay zeros."""
        inputs = [] if name in _SHAPED else inputs
        if not all(source in self.parameters_of for source in inputs):
            return
        names = (n for source in inputs for n in self.parameters_of[source])
        self.parameters_of[node] = tuple(dict.fromkeys(names))
        kept = inputs if name == "aten.mul" else inputs[:1] if name in _MOVES else []
        self._zeros_of[node] = tuple(n for source in kept for n in self._zeros_of.get(source, ()))

    def _stop(self, call: Call) -> None:
        """No rule fits: every axis that the call reads stays, and its results are of no axis."""
        touched = [dim for node in call.node.all_input_nodes for dim in all_dims(self.values[node])]
        if any(not axes.all_frozen(dim) for dim in touched):
            self.unknown[call.name] = self.unknown.get(call.name, 0) + 1
        call.freeze(*touched)
        value = call.node.meta.get("val")
        if isinstance(value, (tuple, list)):
            self.values[call.node] = tuple(_new_dims(v, call.reason) for v in value)
        else:
            self.values[call.node] = _new_dims(value, call.reason)

    def is_norm(self, node: torch.fx.Node) -> bool:
        """Whether a node's module has weights of its own, each along one axis, and no more."""
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        module = f"{stack[-1][0]}." if stack else ""
        names = [name for name in self.parameters if name.startswith(module)]
        shapes = [[len(dim) > 0 for dim in self.parameters[name]] for name in names]
        alone = all("." not in name.removeprefix(module) for name in names)
        return bool(module and names) and alone and all(sum(shape) == 1 for shape in shapes)

    def contract(self, operator: str, weight: Any, own: Dim) -> None:
        """Note that an axis of a weight is summed over.

        A mask sets the weight to zero where units are gone, which a computed weight may not be.
        """
        reason = Reason(operator, f"read by {operator} with computed weights")
        self._contractions.append((self._zeros_of.get(weight, ()), own, reason))

    def emit(self, weight: Any, dim: Dim) -> Dim:
        """Note that an axis of a weight gives the channels of a result."""
        self._emissions.append((self.parameters_of.get(weight, ()), dim))
        return dim

    def _places(self, names: tuple[str, ...], dim: Dim) -> set[tuple[str, int]]:
        """Which axis of the parameters a dimension comes from: the very one, or the only one left.

        A dimension that was permuted is still the parameter's own list; a reshaped one is found by
        its units.
        """
        units, found = set(axes.atoms(dim)), set()
        for name in names:
            own = list(enumerate(self.parameters[name]))
            same = [axis for axis, other in own if other is dim]
            common = [axis for axis, other in own if not units.isdisjoint(axes.atoms(other))]
            if len(same or common) == 1:
                found.add((name, (same or common)[0]))
        return found

    def _consumed(self) -> set[tuple[str, int]]:
        """The axes that are summed over; what is so through other weights stays."""
        found = set()
        for names, dim, reason in self._contractions:
            places = self._places(names, dim)
            if not places:
                axes.freeze(dim, reason)
            found |= places
        return found

    def _outputs(self) -> None:
        """What the model returns stays; what it writes into a buffer has the buffer's units."""
        output = next(node for node in self.program.graph.nodes if node.op == "output")
        specs = self.program.graph_signature.output_specs
        for spec, node in zip(specs, output.args[0], strict=True):
            dims = all_dims(self.values.get(node))
            if spec.kind is OutputKind.BUFFER_MUTATION and spec.target is not None:
                for own, other in zip(self.parameters[spec.target], dims, strict=True):
                    axes.unify(own, other, OUTPUT)
            else:
                for dim in dims:
                    axes.freeze(dim, CLASSES if len(dims) == 2 else OUTPUT)

    def _freeze_repeated(self) -> None:
        values = (*self.values.values(), *self.parameters.values())
        for leaves in {tuple(axes.flat(dim)) for value in values for dim in all_dims(value)}:
            axes.freeze(list(axes.repeated(list(leaves))), TWICE)


def _applied(rule, call: Call) -> Value:
    """What a rule gives; nothing where it meets arguments that it was not made for."""
    try:
        return rule(call)
    except (IndexError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _fits(found: Value, value: Any) -> bool:
    """Whether axes have the sizes of the tensor, or of the tensors."""
    if isinstance(value, (tuple, list)):
        return isinstance(found, tuple) and all(map(_fits, found, value))
    if not isinstance(value, torch.Tensor):
        return True
    return isinstance(found, list) and [axes.size(dim) for dim in found] == list(value.shape)


def _new_dims(value: Any, reason: Reason) -> Dims | None:
    if not isinstance(value, torch.Tensor):
        return None
    return [axes.new(n, reason) for n in value.shape]


def all_dims(value: Value) -> Dims:
    """The axes of a node's tensor, or of all of its tensors."""
    if isinstance(value, tuple):
        return [dim for dims in value for dim in dims or []]
    return value or []
