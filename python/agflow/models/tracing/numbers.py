"""Channels followed by their numbers: which places of parameters meet in the network's tensors.

Axes say which sizes go together; a layer that gives queries, keys and values at once has one axis
for all three, and which of its rows are queries is decided by the reshapes behind it. So the rows
of weights are numbered, and the network's own reshapes, permutations and splits are run on the
numbers. What works on each element alone leaves them; where a parameter is added or multiplied its
places are noted as those of the channels that they meet.

Shape suffixes: C channels, S places along an axis.
"""

# torch.fx types the arguments of a node as whatever an operator may take.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# pyright: reportGeneralTypeIssues=false, reportOptionalMemberAccess=false, reportIndexIssue=false

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Collection
from typing import Any, cast

import torch
from torch import fx
from torch.fx.node import map_arg

from agflow.models.tracing.axes import Leaf, atoms, size
from agflow.models.tracing.call import Call
from agflow.models.tracing.multiplied import ATTENTION, Multiplied, products_of, weighted
from agflow.models.tracing.rules import elementwise, pieces, rule_of, shapes
from agflow.models.tracing.tracer import Tracer, all_dims
from agflow.models.tracing.uses import Use, uses

Place = tuple[str, int, int]
"""A parameter or buffer, an axis and a place along it."""

_MOVES = {
    *(rule for module in (shapes, pieces) for rule in module.RULES.values()),
} - {shapes.channel_shuffle, pieces.embedding}


class Unclear(Exception):
    """Channels that cannot be followed; the message is a clause that says why."""


class Numbers:
    """The numbers of the channels of some classes in the tensors of a traced network.

    A number is 0 where there is no channel of these classes, else that of a row of a weight.

    Attributes
    ----------
    places : by number, the place that has it; number 0 has none
    met : by number of another parameter's place, the rows that it meets
    outputs : by layer whose output was followed, the numbers of its channels, [C]
    """

    def __init__(self, tracer: Tracer, leaves: Collection[Leaf]):
        self._tracer, self._leaves = tracer, frozenset(leaves)
        self._uses = {use.node: use for use in uses(tracer)}
        self._names = {
            node: names[0]
            for node, names in tracer.parameters_of.items()
            if node.op == "placeholder" and names
        }
        self._products = {product.node: product for product in products_of(tracer)}
        self._first: dict[tuple[str, int], int] = {}
        self._known: dict[fx.Node, Any] = {}
        self.places: list[Place | None] = [None]
        self.met: dict[int, set[int]] = defaultdict(set)
        self.outputs: dict[fx.Node, torch.Tensor] = {}

    def at(self, node: fx.Node) -> Any:
        """The numbers in a node's tensor, int64 of its shape; of several tensors one for each.

        Raises
        ------
        Unclear
            What the tensor is computed by mixes channels, or does something that is not known.
        """
        if node not in self._known:
            self._known[node] = self._found(node)
        return self._known[node]

    def of_place(self, name: str, axis: int, place: int) -> int:
        """The number of a place of a parameter."""
        if (name, axis) not in self._first:
            self._first[name, axis] = len(self.places)
            count = size(self._tracer.parameters[name][axis])
            self.places += [(name, axis, i) for i in range(count)]
        return self._first[name, axis] + place

    def forget(self) -> None:
        """Let all tensors of numbers go; what was found stays."""
        self._known.clear()

    def read(self, use: Use) -> None:
        """Note which rows are met by the places of a weight that reads channels."""
        self._meet(along(self.at(use.weight), use.reads), along(self.at(use.x), use.channels))

    def _found(self, node: fx.Node) -> Any:
        values = self._tracer.values.get(node)
        if self._leaves.isdisjoint(leaf for dim in all_dims(values) for leaf in atoms(dim)):
            return _nothing(node.meta.get("val"))
        if node in self._uses:
            return self._layer(self._uses[node])
        if node in self._names:
            return self._parameter(node)
        if node.target is operator.getitem:
            return self.at(node.args[0])[node.args[1]]
        if node in self._products or node.target is ATTENTION:
            return self._multiplied(node)
        call = Call(self._tracer, node)
        rule = rule_of(call)
        if rule is shapes.reshape:  # views of the numbers need not be possible
            return self.at(call.tensors[0]).reshape(call.shape)
        if rule in _MOVES:
            args, kwargs = map_arg((node.args, node.kwargs), self.at)
            try:
                return cast(Any, node.target)(*args, **kwargs)
            except (RuntimeError, TypeError, ValueError, IndexError):  # it takes no integers
                raise Unclear(f"read by {call.name} before they are multiplied") from None
        if rule is elementwise.elementwise:
            return self._merged(call)
        if rule is elementwise.unchanged:
            numbers = self.at(call.tensors[0])
            return call.results(numbers)
        if call.name == "aten.batch_norm":
            return self._normalised(call)
        raise Unclear(f"read by {call.name} before they are multiplied")

    def _parameter(self, node: fx.Node) -> torch.Tensor:
        """Places along the one axis of a parameter that holds the classes."""
        name = self._names[node]
        dims = self._tracer.parameters[name]
        own = [i for i, dim in enumerate(dims) if not self._leaves.isdisjoint(atoms(dim))]
        if len(own) != 1:
            raise Unclear(f"{name} holds them along two axes")
        shape = node.meta["val"].shape
        first = self.of_place(name, own[0], 0)
        numbers_S = torch.arange(first, first + shape[own[0]])
        return _laid(numbers_S, own[0], shape)

    def _layer(self, use: Use) -> torch.Tensor:
        """Channels that a layer gives: the rows of its weight, which its bias meets."""
        emitted_C = along(self.at(use.weight), use.emits)
        if use.groups > 1:
            read_C = along(self.at(use.x), use.channels)
            if len(read_C) != use.groups or len(emitted_C) != use.groups:
                raise Unclear("read by a convolution in groups before they are multiplied")
            self._meet(emitted_C, read_C)
            emitted_C, own_C = read_C, emitted_C
        else:
            own_C = emitted_C
        bias = Call(self._tracer, use.node).get("bias")
        if isinstance(bias, fx.Node):
            self._meet(along(self.at(bias), 0), emitted_C)
        if use.groups == 1:
            self.outputs[use.node] = own_C
        return _laid(emitted_C, use.channels, use.node.meta["val"].shape)

    def _normalised(self, call: Call) -> torch.Tensor:
        """Channels behind running statistics, whose places they meet."""
        numbers = self.at(call["input"])
        of_channels = along(numbers, 1)
        for name in ("weight", "bias", "running_mean", "running_var"):
            if isinstance(call[name], fx.Node):
                self._meet(along(self.at(call[name]), 0), of_channels)
        return numbers

    def _merged(self, call: Call) -> torch.Tensor:
        """What meets element by element: activations of one number, and parameters."""
        tensors = sorted(call.tensors, key=self._tracer.parameters_of.__contains__)
        found = torch.zeros(call.shape, dtype=torch.int64)
        for node in tensors:
            numbers = self.at(node).broadcast_to(call.shape)
            differ = (found != 0) & (numbers != 0) & (found != numbers)
            if differ.any():
                if node not in self._tracer.parameters_of:
                    raise Unclear(f"mixed by {call.name} before they are multiplied")
                self._meet(numbers[differ], found[differ])
            found = torch.where(found == 0, numbers, found)
        return found

    def _multiplied(self, node: fx.Node) -> torch.Tensor:
        """What an attention takes of its values: channels that it does not sum over."""
        shape = node.meta["val"].shape
        product = self._products.get(node)
        if node.target is ATTENTION:
            product = weighted(self._tracer, node)
        carried = [
            (operand, label)
            for operand in range(2)
            for label in product.labels[operand]
            if label in product.result and label not in product.labels[1 - operand]
            if not self._leaves.isdisjoint(product.leaves(self._tracer, operand, [label]))
        ]
        if len(carried) != 1:
            raise Unclear(f"read by {Call(self._tracer, node).name} twice")
        ((operand, label),) = carried
        numbers = self.arranged(product, operand, [*product.shared, label])
        kept = [*product.shared, label]
        for name in product.result:
            if name not in kept:
                numbers, kept = numbers[..., None], [*kept, name]
        order = [kept.index(name) for name in product.result]
        return numbers.permute(order).expand(shape)

    def arranged(self, product: Multiplied, operand: int, labels: list[str]) -> torch.Tensor:
        """The numbers in an operand by some of its axes, which are alike along all others.

        Parameters
        ----------
        labels : of the axes; one that the operand does not have has the size 1. Heads that several
            heads of queries share are repeated for them
        """
        numbers, own = self.at(product.operands[operand]), list(product.labels[operand])
        for label in [label for label in own if label not in labels]:
            numbers = _alike(numbers, own.index(label))
            own.remove(label)
        numbers = numbers.permute([own.index(label) for label in labels if label in own])
        for axis, label in enumerate(labels):
            if label not in own:
                numbers = numbers.unsqueeze(axis)
        if product.node.target is ATTENTION and operand == 1:
            of_heads = labels.index("...0") if "...0" in labels else None
            queries = product.node.args[0].meta["val"].shape
            if of_heads is not None and 1 < numbers.shape[of_heads] < queries[-3]:
                times = queries[-3] // numbers.shape[of_heads]
                numbers = numbers.repeat_interleave(times, of_heads)
        return numbers

    def _meet(self, others: torch.Tensor, rows: torch.Tensor) -> None:
        """Note rows that places of other parameters meet."""
        pairs = torch.stack([others.flatten(), rows.flatten()], 1)
        for other, row in torch.unique(pairs, dim=0).tolist():
            if other and row and other != row:
                self.met[other].add(row)


def along(numbers: torch.Tensor, axis: int) -> torch.Tensor:
    """The numbers along one axis, which are alike along all others: [S]."""
    numbers = numbers.movedim(axis, -1).flatten(0, -2) if numbers.ndim > 1 else numbers[None]
    return _alike(numbers, 0)


def _alike(numbers: torch.Tensor, axis: int) -> torch.Tensor:
    first = numbers.narrow(axis, 0, 1)
    if not bool((numbers == first).all()):
        raise Unclear("not the same channels at all places")
    return first.squeeze(axis)


def _laid(numbers_S: torch.Tensor, axis: int, shape: torch.Size) -> torch.Tensor:
    """Numbers along one axis of a tensor, alike along all others."""
    sizes = [1] * len(shape)
    sizes[axis] = -1
    return numbers_S.view(sizes).expand(shape)


def _nothing(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(map(_nothing, value))
    if not isinstance(value, torch.Tensor):
        return None
    return torch.zeros((), dtype=torch.int64).expand(value.shape)
