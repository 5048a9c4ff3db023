"""Run an exported network node by node, with any weights, from any place to any other.

A *place* is an index into the nodes: what lies before it has run. The values that later nodes read
are *live* there; a network that is held at a place is just these.

Shape suffixes: B images of a batch.
"""

# torch.fx types the arguments of a node as anything that a graph can hold.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.node import map_arg

from agflow.errors import UnsupportedModelError

Values = dict[fx.Node, Any]
"""What nodes have returned."""


OfKept = Mapping[fx.Node, tuple[int, torch.Tensor]]
"""By node that takes means over an axis of its first argument: the axis, and what stays of it."""

_NORMS = {torch.ops.aten.layer_norm.default, torch.ops.aten.rms_norm.default}


class GraphRun:
    """The nodes of an exported network in evaluation mode, in the order in which they run.

    Attributes
    ----------
    nodes : those that compute
    names : by placeholder, the name of the parameter or buffer
    image : the placeholder of the images
    batch_size : images of a batch, as exported

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.tracing.graph_run import GraphRun
    >>> model, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.randn(2, 3, 8, 8)
    >>> run = GraphRun(torch.export.export(model, (images,)))
    >>> weights = run.weights_of(model)
    >>> before = run.run({run.image: images}, weights, 0, 1)  # the convolution
    >>> behind = run.run(before, weights, 1, 2)
    >>> torch.equal(behind[run.nodes[1]], model(images))
    True
    """

    def __init__(self, program: ExportedProgram):
        signature = program.graph_signature
        named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.names: dict[fx.Node, str] = {}
        self._constants: Values = {}
        images = []
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in named:
                self.names[node] = named[node.name]
            elif node.op == "placeholder" and node.name in signature.user_inputs:
                images.append(node)
            elif node.op == "placeholder":
                constant = signature.inputs_to_lifted_tensor_constants[node.name]
                self._constants[node] = program.constants[constant]
            elif node.op == "get_attr":
                self._constants[node] = getattr(program.graph_module, node.target)
        if len(images) != 1:
            raise UnsupportedModelError(
                f"the network takes {len(images)} inputs, expected the images alone"
            )
        self.image = images[0]
        self.batch_size = self.image.meta["val"].shape[0]
        self.nodes = [node for node in program.graph.nodes if node.op == "call_function"]
        self.place = {node: i for i, node in enumerate(self.nodes)}
        (output,) = (node for node in program.graph.nodes if node.op == "output")
        self._constant = set(self.names) | set(self._constants)
        for node in self.nodes:
            if node.all_input_nodes and self._constant.issuperset(node.all_input_nodes):
                self._constant.add(node)
        self._last_use = dict.fromkeys([self.image, *self.nodes], -1)
        for node in [*self.nodes, output]:
            for read in node.all_input_nodes:
                self._last_use[read] = self.place.get(node, len(self.nodes))

    def weights_of(self, model: torch.nn.Module) -> dict[str, torch.Tensor]:
        """The parameters and buffers of a model of this graph, by name."""
        tensors = {
            **dict(model.named_parameters(remove_duplicate=False)),
            **dict(model.named_buffers(remove_duplicate=False)),
        }
        return {name: tensors[name].detach() for name in self.names.values()}

    def output_of(self, module: str) -> fx.Node:
        """The node that a module returns: the last that runs in it."""
        return next(
            node
            for node in reversed(self.nodes)
            if any(path == module for path, _ in node.meta.get("nn_module_stack", {}).values())
        )

    def is_answer(self, node: fx.Node) -> bool:
        """Whether the network returns a value."""
        return any(user.op == "output" for user in node.users)

    def is_constant(self, node: fx.Node) -> bool:
        """Whether a value depends on the weights alone, not on the images."""
        return node in self._constant

    @torch.no_grad()
    def value_of(
        self, node: fx.Node, known: Mapping[fx.Node, Any], weight: Callable[[str], torch.Tensor]
    ) -> Any:
        """Compute one value from those that are known and the weights, which are asked by name."""
        if node in known:
            return known[node]
        if node in self.names:
            return weight(self.names[node])
        if node in self._constants:
            return self._constants[node]
        args, kwargs = map_arg(
            (node.args, node.kwargs), lambda read: self.value_of(read, known, weight)
        )
        return _out_of_place(node)[0](*args, **kwargs)

    @torch.no_grad()
    def run(
        self,
        values: Mapping[fx.Node, Any],
        weights: Mapping[str, torch.Tensor],
        first: int,
        last: int,
        keep: Iterable[fx.Node] = (),
        zero: Collection[fx.Node] = (),
        norms: OfKept | None = None,
    ) -> Values:
        """Run the nodes from place ``first`` to place ``last``.

        Parameters
        ----------
        values : those live at ``first``; left as they are
        weights : the network's parameters and buffers, by name
        keep : nodes whose values are wanted though nothing reads them at ``last``
        zero : nodes that return zeros
        norms : nodes that take means over some channels alone

        Returns
        -------
        the values live at ``last``, and those of ``keep``
        """
        kept = set(keep)
        found: Values = dict(values)

        def value(node: fx.Node) -> Any:
            if node in self.names:
                return weights[self.names[node]]
            return self._constants[node] if node in self._constants else found[node]

        for place in range(first, last):
            node = self.nodes[place]
            args, kwargs = map_arg((node.args, node.kwargs), value)
            target, changed = _out_of_place(node)
            if norms is not None and node in norms:
                target = functools.partial(_of_kept, target, *norms[node])
            found[node] = target(*args, **kwargs)
            if node in zero:
                found[node] = torch.zeros_like(found[node])
            if changed is not None and changed in found and changed not in kept:
                found[changed] = found[node]
            for read in {node, *node.all_input_nodes}:
                if self._last_use.get(read, last) <= place and read not in kept:
                    found.pop(read, None)
        return {
            node: value
            for node, value in found.items()
            if node in kept or self._last_use[node] >= last
        }

    @functools.cached_property
    def live_bytes(self) -> list[int]:
        """Bytes of the values live at each place, of one image."""
        changes = [0] * (len(self.nodes) + 2)
        for node, last in self._last_use.items():
            size = _size(node.meta.get("val")) // self.batch_size
            changes[self.place.get(node, -1) + 1] += size
            changes[max(last, self.place.get(node, -1)) + 1] -= size
        return list(itertools.accumulate(changes))


def _of_kept(
    target: Callable[..., Any],
    axis: int,
    kept_S: torch.Tensor,
    x: torch.Tensor,
    *args: Any,
    **named,
) -> Any:
    """What an operator that takes means over an axis gives where it takes them over parts of it.

    A norm in one operator gives zeros elsewhere.
    """
    kept_S = kept_S.to(x.device)
    part = x.index_select(axis, kept_S)
    if target not in _NORMS:
        return target(part, *args, **named)
    _, *weights = args
    of_kept = [w.index_select(0, kept_S) if isinstance(w, torch.Tensor) else w for w in weights]
    normed = target(part, [len(kept_S)], *of_kept, **named)
    return torch.zeros_like(x).index_copy_(axis, kept_S, normed)


def _size(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return sum(map(_size, value)) if isinstance(value, (tuple, list)) else 0


def _out_of_place(node: fx.Node) -> tuple[Any, fx.Node | None]:
    """The operator that leaves its inputs as they are, and the node that this one overwrites.

    Later readers of an overwritten value get the new one.
    """
    target = node.target
    if target is operator.getitem or not isinstance(target, torch._ops.OpOverload):
        return target, None
    namespace, name = target._schema.name.split("::")
    if not name.endswith("_") or not target._schema.is_mutable:
        return target, None
    packet = getattr(getattr(torch.ops, namespace), name.removesuffix("_"))
    changed = node.args[0]
    return getattr(packet, target._overloadname), changed if isinstance(changed, fx.Node) else None
