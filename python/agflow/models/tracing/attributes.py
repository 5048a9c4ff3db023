"""Numbers that a model's code computes with and that must follow a group's units.

Which they are cannot be read from the graph, where a number is a number. Candidates are integers
on the modules that hold the group's parameters, or that call an operator with such a number, whose
value is a product with the number of units. The proof decides which of them it takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import combinations

from torch import nn

from agflow.models.channel_group import Attribute, ChannelGroup
from agflow.models.tracing.axes import Leaf, atoms, coordinates, flat, size
from agflow.models.tracing.tracer import Tracer, all_dims
from agflow.models.tracing.uses import callers, dims_of

Family = tuple[Attribute, ...]
"""One attribute of all modules of one class."""

_MOST_FAMILIES, _MOST_TOGETHER = 6, 2
_PARENTS = 3  # of a parameter: its module and two around it


PerUnit = dict[int, "int | None"]
"""By number that follows the units, what a unit takes off it; None for a multiple of them."""


def attribute_choices(
    model: nn.Module,
    tracer: Tracer,
    group: ChannelGroup,
    leaf: Leaf,
    numbers: PerUnit | None = None,
) -> Iterator[list[tuple[Attribute, ...]]]:
    """Sets of attributes that the code may compute with.

    Parameters
    ----------
    leaf : the class of axes that the units are, or that they lie along
    numbers : which follow the units; None where units are the class
    """
    numbers = _numbers(tracer, group, leaf) if numbers is None else numbers
    families = _families(model, tracer, group, leaf, numbers)[:_MOST_FAMILIES]
    for count in range(1, _MOST_TOGETHER + 1):
        yield [sum(chosen, ()) for chosen in combinations(families, count)]


def _families(
    model: nn.Module, tracer: Tracer, group: ChannelGroup, leaf: Leaf, per_unit: PerUnit
) -> list[Family]:
    names = dict.fromkeys(_owners(tracer, group, leaf, per_unit))
    families = defaultdict(list)
    for name in names:
        module = model.get_submodule(name)
        if type(module).__module__.startswith("torch.nn.modules."):
            continue  # whose sizes follow the shapes of their parameters
        for key, place, value in _integers(module):
            if value in per_unit:
                attribute = Attribute(name, key, place, per_unit[value])
                families[type(module), key, place].append(attribute)
    return [tuple(family) for family in families.values()]


def _numbers(tracer: Tracer, group: ChannelGroup, leaf: Leaf) -> PerUnit:
    found: PerUnit = {}
    dims = [(tracer.parameters[member.name][member.axis], member.runs) for member in group.members]
    for dim, runs in dims:
        places = [unit for unit in coordinates(dim, leaf) if unit >= 0]
        found.setdefault(len(coordinates(dim, leaf)), len(places) // leaf.extent)
        for run in runs:
            found[leaf.extent * run.width] = None
            found[leaf.extent * run.width * run.repeats] = None
    for dim in (dim for value in tracer.values.values() for dim in all_dims(value)):
        if leaf in (factors := flat(dim)):  # heads that share one of the keys: [units, shared]
            found.setdefault(leaf.extent * size(factors[factors.index(leaf) + 1 :]), None)
    found[leaf.extent] = None
    found.pop(1, None)
    return found


def _owners(
    tracer: Tracer, group: ChannelGroup, leaf: Leaf, numbers: Iterable[int]
) -> Iterator[str]:
    """Modules whose code may compute with a number: callers of such operators first."""
    for node in tracer.program.graph.nodes:
        touched = node.op == "call_function" and any(
            leaf in atoms(dim) for source in node.all_input_nodes for dim in dims_of(tracer, source)
        )
        if touched and not set(_numbers_in(node.args)).isdisjoint(numbers):
            yield from reversed(callers(node)[-_PARENTS:])
    for member in group.members:
        path = member.name.split(".")[:-1]
        for count in range(len(path), max(0, len(path) - _PARENTS), -1):
            yield ".".join(path[:count])


def _numbers_in(argument: object) -> Iterator[int]:
    if isinstance(argument, int):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for item in argument:
            yield from _numbers_in(item)


def _integers(module: nn.Module) -> Iterator[tuple[str, int | None, int]]:
    """Integers and integers in tuples and lists on a module: name, place and value."""
    for key, value in vars(module).items():
        if type(value) is int:
            yield key, None, value
        elif isinstance(value, (tuple, list)) and all(type(item) is int for item in value):
            yield from ((key, place, item) for place, item in enumerate(value))
