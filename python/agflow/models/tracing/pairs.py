"""Channels inside of the heads of an attention: pairs of a query and a key channel, and values.

Queries and keys are summed over by each other: what one of them loses the other one must, head by
head. Which rows of which weights meet there is read off their numbers
(:mod:`agflow.models.tracing.numbers`). A head that several heads of queries share is one part.

Shape suffixes: L places along the axes that both operands share, D channels of a head.
"""

# torch.fx types the arguments of a node as whatever an operator may take.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import fx

from agflow.models.tracing.axes import Dim, Leaf, atoms, flat
from agflow.models.tracing.call import Call, operator_name
from agflow.models.tracing.groups import ChannelClass
from agflow.models.tracing.multiplied import ATTENTION, Multiplied, products_of, weighted
from agflow.models.tracing.normed import TAKES_MEANS
from agflow.models.tracing.numbers import Numbers, Unclear, along
from agflow.models.tracing.tracer import Tracer, all_dims
from agflow.models.tracing.uses import uses

Unit = tuple[frozenset[int], frozenset[int]]
"""The numbers of the rows that make a unit, and of what they are multiplied with or read by."""

Parts = list[list[Unit]]


@dataclass(frozen=True)
class Inside:
    """What one attention has inside of its heads.

    Attributes
    ----------
    product : of queries and keys
    keys, values : the classes of their channels, which may be one
    pairs : units of queries (first) and keys, by head
    taken : units of values (first) and the places that read them, by head; or why there are none
    numbers : of all of them
    divided : names of the parameters into which a factor of all queries can go
    """

    product: Multiplied
    keys: ChannelClass
    values: ChannelClass | None
    pairs: Parts
    taken: Parts | str
    numbers: Numbers
    divided: frozenset[str]

    @property
    def is_one_class(self) -> bool:
        """Whether one layout holds queries, keys and values, so that all have one width."""
        return self.keys is self.values


def insides_of(
    tracer: Tracer, classes: Collection[ChannelClass]
) -> tuple[list[Inside], dict[ChannelClass, str]]:
    """The attentions of a traced network, and why others keep what is inside of their heads."""
    of_leaf = {held.leaf: held for held in classes}
    met: dict[ChannelClass, list[Multiplied]] = {}
    found, reasons = [], {}
    for product in products_of(tracer):
        classes = _summed(tracer, product, of_leaf)
        if len(classes) == 1 and flat(_axis(tracer, product)) == [classes[0].leaf]:
            met.setdefault(classes[0], []).append(product)
        elif classes:
            reasons |= dict.fromkeys(classes, _mixed(tracer, product, classes))
    for keys, products in met.items():
        try:
            if len(products) > 1:
                raise Unclear("multiplied in several places")
            found.append(_inside(tracer, products[0], keys, of_leaf))
        except Unclear as unclear:
            reasons[keys] = str(unclear)
    return found, reasons


def _summed(
    tracer: Tracer, product: Multiplied, of_leaf: Mapping[Leaf, ChannelClass]
) -> list[ChannelClass]:
    """The classes that a product sums over, if that alone is why they stay."""
    leaves = dict.fromkeys(atoms(_axis(tracer, product)))
    return [
        of_leaf[leaf]
        for leaf in leaves
        if leaf in of_leaf and leaf.reason and leaf.reason.operator == operator_name(product.node)
    ]


def _axis(tracer: Tracer, product: Multiplied) -> Dim:
    """The one axis that a product sums over."""
    return product.dim(tracer, 0, product.summed[0]) if len(product.summed) == 1 else []


def _mixed(tracer: Tracer, product: Multiplied, classes: Collection[ChannelClass]) -> str:
    """Why an axis of several classes stays, as that of pairs that rotate."""
    try:
        _pairs(Numbers(tracer, {held.leaf for held in classes}), product)
    except Unclear as unclear:
        return str(unclear)
    return "of several kinds in each head"


def _inside(
    tracer: Tracer,
    product: Multiplied,
    keys: ChannelClass,
    of_leaf: Mapping[Leaf, ChannelClass],
) -> Inside:
    if keys.leaf.normed or keys.norms != ():
        raise Unclear(TAKES_MEANS)
    weighting = _weighting(tracer, product)
    values = None if weighting is None else _carried(tracer, *weighting, of_leaf)
    leaves = {held.leaf for held in (keys, values) if held is not None}
    numbers = Numbers(tracer, leaves)
    pairs = _pairs(numbers, product)
    if keys is not values and keys.consumed:
        raise Unclear(f"read by {keys.consumed[0].parameters[0]} beside")
    if values is None or weighting is None:
        taken: Parts | str = "no layer reads the values"
    else:
        taken = _taken(numbers, *weighting, values, keys is values)
    divided = frozenset(_divided(tracer, product.operands[0], keys.leaf))
    numbers.forget()
    return Inside(product, keys, values, pairs, taken, numbers, divided)


def _weighting(tracer: Tracer, product: Multiplied) -> tuple[Multiplied, int] | None:
    """The product of attention weights and values, and which of its operands the values are."""
    if product.node.target is ATTENTION:
        return weighted(tracer, product.node), 1
    behind = {product.node}
    later = {other.node: other for other in products_of(tracer)}
    for node in tracer.program.graph.nodes:
        if behind.isdisjoint(node.all_input_nodes):
            continue
        if node in later:
            computed = [operand in behind for operand in later[node].operands]
            return (later[node], computed.index(False)) if sum(computed) == 1 else None
        behind.add(node)
    return None


def _carried(
    tracer: Tracer, product: Multiplied, operand: int, of_leaf: Mapping[Leaf, ChannelClass]
) -> ChannelClass | None:
    """The class of the channels of values."""
    label = _own_label(product, operand)
    leaves = flat(product.dim(tracer, operand, label)) if label else []
    return of_leaf.get(leaves[0]) if len(leaves) == 1 else None


def _own_label(product: Multiplied, operand: int) -> str | None:
    """The label of the one axis of the product that an operand has for itself."""
    others = product.labels[1 - operand]
    own = [of for of in product.labels[operand] if of in product.result and of not in others]
    return own[0] if len(own) == 1 else None


def _pairs(numbers: Numbers, product: Multiplied) -> Parts:
    """Units of queries and keys, by head of keys, in the order of the queries."""
    labels = [*product.shared, product.summed[0]]
    q, k = (numbers.arranged(product, operand, labels) for operand in (0, 1))
    q, k = torch.broadcast_tensors(q, k)
    width = q.shape[-1]
    heads = torch.unique(torch.cat([q, k], -1).reshape(-1, 2 * width), dim=0).tolist()
    sharing: dict[tuple[int, ...], list[list[int]]] = {}
    for row in heads:  # ascending by their queries
        sharing.setdefault(tuple(row[width:]), []).append(row[:width])
    return _checked(
        [
            [
                (frozenset(queries[i] for queries in sharers), frozenset([key]))
                for i, key in enumerate(keys)
            ]
            for keys, sharers in sharing.items()
        ]
    )


def _taken(
    numbers: Numbers, product: Multiplied, operand: int, values: ChannelClass, summed: bool
) -> Parts | str:
    """Units of values and what reads them, by head; or why there are none.

    Parameters
    ----------
    summed : whether queries and keys, over which is summed, are of the same class
    """
    label = _own_label(product, operand)
    if values.norms != ():
        return TAKES_MEANS
    if label is None or (values.leaf.reason is not None and not summed):
        return values.leaf.reason.text if values.leaf.reason else "no layer reads the values"
    try:
        v = numbers.arranged(product, operand, [*product.shared, label])
        heads = torch.unique(v.reshape(-1, v.shape[-1]), dim=0).tolist()
        readers = _readers(numbers, values)
        return _checked(
            [[(frozenset([row]), frozenset(readers[row])) for row in rows] for rows in heads]
        )
    except Unclear as unclear:
        return str(unclear)


def _readers(numbers: Numbers, values: ChannelClass) -> dict[int, set[int]]:
    """By number of a row that makes values, those of the places that read it."""
    found: dict[int, set[int]] = defaultdict(set)
    for use in values.consumed:
        numbers.read(use)
        for place in along(numbers.at(use.weight), use.reads).tolist():
            for row in numbers.met.get(place, ()):
                found[row].add(place)
    return found


def _checked(parts: Parts) -> Parts:
    """Parts of equally many units, each of which has numbers of its own."""
    units = [unit for part in parts for unit in part]
    seen = [number for unit in units for side in unit for number in side]
    if 0 in seen or not all(side for unit in units for side in unit):
        raise Unclear("some of them are no channels of a layer")
    if len(seen) != len(set(seen)):
        raise Unclear("some of them meet several others")
    if len({len(part) for part in parts}) > 1:
        raise Unclear("heads of several widths")
    return parts


def _divided(tracer: Tracer, node: fx.Node, leaf: Leaf) -> Iterator[str]:
    """The parameters that a factor of all queries can go into: those of their last affine step.

    What is added to queries behind it is multiplied, too.
    """
    layers = {use.node: use for use in uses(tracer)}
    while node not in layers and operator_name(node) != "aten.batch_norm":
        inputs = [
            source
            for source in node.all_input_nodes
            if any(leaf in atoms(dim) for dim in all_dims(tracer.values.get(source)))
        ]
        weights = [source for source in inputs if source in tracer.parameters_of]
        if operator_name(node) in ("aten.add", "aten.sub"):
            yield from (name for source in weights for name in tracer.parameters_of[source])
        inputs = [source for source in inputs if source not in weights]
        if len(inputs) != 1:
            return
        (node,) = inputs
    if node in layers and not layers[node].is_layer:
        yield from layers[node].parameters
        return
    call = Call(tracer, node)
    for argument in (call["weight"], call["bias"]):
        yield from tracer.parameters_of.get(argument, ())
