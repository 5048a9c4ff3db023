"""Which weights a traced graph contracts activations with, and the modules that do it."""

# torch.fx types the arguments of a node as whatever an operator may take.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportFunctionMemberAccess=false, reportIndexIssue=false, reportReturnType=false
# pyright: reportOptionalMemberAccess=false, reportOptionalSubscript=false

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import torch
from torch import fx

from agflow.models.tracing.axes import Dim, Leaf, atoms
from agflow.models.tracing.tracer import Tracer


@dataclass(frozen=True)
class Use:
    """A contraction of an activation with a weight.

    Attributes
    ----------
    node : of the operator
    x, weight : what it contracts
    parameters : that the weight is, or is computed of
    channels : the axis of ``x`` that is contracted, from the end
    reads, emits : the axes of the weight that are contracted, and that appear in the output
    groups : of a convolution, else 1
    kernel, stride : positions of a convolution's kernel and its first stride, else 1
    """

    node: fx.Node
    x: fx.Node
    weight: fx.Node
    parameters: tuple[str, ...]
    channels: int
    reads: int
    emits: int
    groups: int = 1
    kernel: int = 1
    stride: int = 1

    @property
    def is_convolution(self) -> bool:
        return self.node.target not in _MATRICES

    @property
    def is_layer(self) -> bool:
        """Whether it is a convolution or linear layer, whose third argument is a bias."""
        return self.is_convolution or self.node.target is torch.ops.aten.linear.default

    def of_constants(self, tracer: Tracer) -> bool:
        """Whether it is a product of what depends on no image."""
        return not self.is_convolution and self.x in tracer.parameters_of

    @property
    def rows(self) -> fx.Node:
        """The value at each of whose places the weight is applied once."""
        packet = getattr(self.node.target, "overloadpacket", None)
        return self.x if _CONVOLUTIONS.get(packet, (0, False))[1] else self.node

    def read(self, tracer: Tracer) -> Dim:
        """The axis of the activation that is contracted."""
        return dims_of(tracer, self.x)[self.channels]

    def emitted(self, tracer: Tracer) -> dict[Leaf, None]:
        """The classes that its output's channels are made of, in order."""
        return dict.fromkeys(atoms(dims_of(tracer, self.weight)[self.emits]))

    def passed(self, tracer: Tracer) -> set[Leaf]:
        """Classes that pass through it, each channel by itself: a grouped convolution's groups."""
        if self.groups == 1:
            return set()
        emitted = self.emitted(tracer)
        return {leaf for leaf in atoms(self.read(tracer)) if leaf in emitted}


_CONVOLUTIONS = {
    torch.ops.aten.conv1d: (-2, False),
    torch.ops.aten.conv2d: (-3, False),
    torch.ops.aten.conv3d: (-4, False),
    torch.ops.aten.conv_transpose1d: (-2, True),
    torch.ops.aten.conv_transpose2d: (-3, True),
    torch.ops.aten.conv_transpose3d: (-4, True),
}
"""By operator: the axis of the channels, and whether the weight is [inputs, outputs, ...]."""

_MATRICES = {
    torch.ops.aten.linear.default: (0, 1, True),
    torch.ops.aten.matmul.default: (0, 1, False),
    torch.ops.aten.mm.default: (0, 1, False),
    torch.ops.aten.addmm.default: (1, 2, False),
}
"""By operator: which arguments are activation and weight, and whether it is [outputs, inputs]."""


def uses(tracer: Tracer) -> list[Use]:
    """Every contraction with a weight, in forward order."""
    return [use for use in contractions(tracer) if use.parameters and not use.of_constants(tracer)]


def contractions(tracer: Tracer) -> list[Use]:
    """Every convolution and linear layer, in forward order, and every product with a weight.

    Those of constants and those with filters that are computed from the images are among them.
    """
    sources, found = tracer.parameters_of, []
    for node in tracer.program.graph.nodes:
        if getattr(node.target, "overloadpacket", None) in _CONVOLUTIONS:
            found.append(_convolution(node, sources.get(node.args[1], ())))
        elif node.target in _MATRICES:
            use = _matrix_product(node, sources)
            if use.is_layer or (use.parameters and not use.of_constants(tracer)):
                found.append(use)
    return found


def _matrix_product(node: fx.Node, sources: dict[fx.Node, tuple[str, ...]]) -> Use:
    x, weight, outputs_first = _MATRICES[node.target]
    x, weight = node.args[x], node.args[weight]
    last = weight.meta["val"].dim() - 1
    axes = (last, last - 1) if outputs_first else (last - 1, last)
    return Use(node, x, weight, sources.get(weight, ()), -1, *axes)


def _convolution(node: fx.Node, parameters: tuple[str, ...]) -> Use:
    channels, transposed = _CONVOLUTIONS[node.target.overloadpacket]
    x, weight = node.args[:2]
    groups = node.args[6] if len(node.args) > 6 else node.kwargs.get("groups", 1)
    reads, emits = (0, 1) if transposed else (1, 0)
    kernel = weight.meta["val"].shape[2:].numel()
    stride = node.args[3] if len(node.args) > 3 else [1]
    return Use(node, x, weight, parameters, channels, reads, emits, groups, kernel, int(stride[0]))


def dims_of(tracer: Tracer, node: fx.Node) -> list[Dim]:
    """The axes of a node's tensor; none of several tensors'."""
    dims = tracer.values.get(node)
    return dims if isinstance(dims, list) else []


def callers(node: fx.Node) -> list[str]:
    """Names of the modules in whose calls the node is, outermost first; the model itself is ""."""
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


def call_counts(program: torch.export.ExportedProgram) -> Counter[str]:
    """By module, how often one pass calls it."""
    return Counter({path: len(calls) for path, calls in calls_in(program).items()})


def calls_in(program: torch.export.ExportedProgram) -> dict[str, list[list[fx.Node]]]:
    """By module, the nodes of each of its calls, in forward order."""
    calls: dict[str, dict[str, list[fx.Node]]] = defaultdict(lambda: defaultdict(list))
    for node in program.graph.nodes:
        for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
            calls[path][key].append(node)
    return {path: list(of_key.values()) for path, of_key in calls.items()}


def nodes_in(program: torch.export.ExportedProgram) -> dict[str, list[fx.Node]]:
    """By module, the nodes that its calls are made of, in forward order."""
    inside: dict[str, list[fx.Node]] = defaultdict(list)
    for node in program.graph.nodes:
        for path in dict.fromkeys(callers(node)):
            inside[path].append(node)
    return inside


def entering(nodes: list[fx.Node], tracer: Tracer) -> fx.Node | None:
    """The one value that the nodes of a module read and that is neither theirs nor a weight."""
    own = set(nodes)
    read = {
        source
        for node in nodes
        for source in node.all_input_nodes
        if source not in own and source not in tracer.parameters_of
    }
    return read.pop() if len(read) == 1 else None


def leaving(nodes: list[fx.Node]) -> fx.Node | None:
    """The one value of a module's nodes that others read."""
    own = set(nodes)
    read = [node for node in nodes if not own.issuperset(node.users)]
    return read[0] if len(read) == 1 else None


def parameter_names(program: torch.export.ExportedProgram) -> dict[str, str]:
    """By placeholder, the name of the parameter that it is; shared ones once."""
    return dict(program.graph_signature.inputs_to_parameters)


def batch_of(tracer: Tracer) -> set[Leaf]:
    """What the axis of the images consists of."""
    inputs = set(tracer.program.graph_signature.user_inputs)
    images = next(
        node
        for node in tracer.program.graph.nodes
        if node.op == "placeholder" and node.name in inputs
    )
    return set(atoms(dims_of(tracer, images)[0]))
