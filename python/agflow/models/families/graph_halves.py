"""A traced model in two parts that share its parameters: up to a block, and from there on.

The parts are cut out of the graph that torch.export makes of the model in evaluation mode, where a
single tensor passes from one to the other.

Shape suffixes: B images.
"""

# Nodes of a graph hold anything.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from agflow._utils.devices import first_parameter
from agflow._utils.modes import evaluating
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models.copying import copy_of
from agflow.models.counting import counted_macs
from agflow.models.resizing import resize_of

_BATCH = 2
_CONTAINERS = nn.Sequential, nn.ModuleList, nn.ModuleDict


@dataclass(frozen=True)
class _Blocks:
    """A model's graph, and where it can be cut.

    Attributes
    ----------
    graph : with the model's own parameters
    places : the values that pass alone: before the first block, and behind each
    """

    graph: fx.GraphModule
    places: tuple[fx.Node, ...]


_known: weakref.WeakKeyDictionary[nn.Module, tuple[Any, _Blocks]] = weakref.WeakKeyDictionary()


def split(
    model: nn.Module, size: tuple[int, int, int], blocks: int
) -> tuple[fx.GraphModule, fx.GraphModule]:
    """The first ``blocks`` blocks of a model, images to features, and the rest, to logits.

    Both compute as in evaluation mode, whatever mode they are given.

    Raises
    ------
    InvalidValueError
        The model has not so many blocks.
    UnsupportedModelError
        torch.export does not take the model for any number of images, or no block ends in a single
        tensor.
    """
    found = _blocks_of(model, size)
    present = len(found.places) - 1
    if not 0 <= blocks <= present:
        raise InvalidValueError(
            f"a split behind {blocks} blocks was asked for, expected 0 to {present}, the blocks "
            f"of {type(model).__name__} behind which a single tensor passes"
        )
    place = found.places[blocks]
    prefix, rest = _prefix(found.graph, place), _rest(found.graph, place)
    resize = resize_of(model)
    if resize is not None:
        prefix.register_forward_pre_hook(resize)
    return prefix, rest


def prefix_macs(model: nn.Module, size: tuple[int, int, int], blocks: int) -> int:
    """The multiply-accumulates per image of the first part that :func:`split` returns."""
    prefix, _ = split(model, size, blocks)
    if next(prefix.parameters(), None) is None:
        return 0
    image = torch.zeros(1, *size).to(first_parameter(model))
    return counted_macs(prefix, lambda: prefix(image), type(model).__name__)


def _blocks_of(model: nn.Module, size: tuple[int, int, int]) -> _Blocks:
    """The blocks of a model; found once for as long as it has these tensors."""
    tensors = model.state_dict(keep_vars=True)
    key = size, tuple((name, id(tensor), tensor.shape) for name, tensor in tensors.items())
    known = _known.get(model)
    if known is None or known[0] != key:
        graph = _graph_of(model, size)
        known = _known[model] = key, _Blocks(graph, tuple(_places(model, graph)))
    return known[1]


def _graph_of(model: nn.Module, size: tuple[int, int, int]) -> fx.GraphModule:
    """The model's graph for any number of images of a size."""
    shared = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    plain = copy_of(model, shared)
    plain._forward_pre_hooks.clear()  # that of a resized model belongs to the prefix
    images = torch.zeros(_BATCH, *size).to(first_parameter(model))
    try:
        with evaluating(plain), torch.no_grad():
            program = torch.export.export(
                plain, (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
            graph = program.module(check_guards=False)
    except Exception as error:  # of any kind, from the model's code or from torch's
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be split behind a block: torch.export does not take "
            f"it for any number of images ({reason})"
        ) from error
    if len(_output(graph).all_input_nodes) != 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be split behind a block: it returns several tensors"
        )
    return graph


def _places(model: nn.Module, graph: fx.GraphModule) -> list[fx.Node]:
    """The values before the first block and behind each block."""
    steps = _steps(graph)
    alone = _passing_alone(steps)
    spans = _spans(steps)
    blocks = list(_blocks("", model, spans, alone))
    if any(list(module.children()) for _, module in blocks):
        blocks = [(span, module) for span, module in blocks if list(module.children())]
    if not blocks:
        raise UnsupportedModelError(
            f"{type(model).__name__} cannot be split behind a block: no module of it ends in a "
            "single tensor"
        )
    spans_of_blocks = sorted(span for span, _ in blocks)
    return [alone[spans_of_blocks[0][0] - 1], *(alone[last] for _, last in spans_of_blocks)]


def _steps(graph: fx.GraphModule) -> list[fx.Node]:
    """The images and all that is computed from them, in order."""
    steps: list[fx.Node] = []
    from_images: set[fx.Node] = set()
    for node in graph.graph.nodes:
        if node.op == "placeholder" or (
            node.op == "call_function" and from_images.intersection(node.all_input_nodes)
        ):
            from_images.add(node)
            steps.append(node)
    return steps


def _passing_alone(steps: list[fx.Node]) -> dict[int, fx.Node]:
    """By the number of a step, the only tensor that later steps need, where there is one."""
    number = {node: i for i, node in enumerate(steps)}
    last_use = [
        max((number.get(user, len(steps)) for user in node.users), default=-1) for node in steps
    ]
    alone, alive = {}, set[int]()
    for i, node in enumerate(steps):
        if not _is_batch_size(node):
            alive.add(i)
        alive = {j for j in alive if last_use[j] > i}
        if alive == {i} and isinstance(node.meta.get("val"), torch.Tensor):
            alone[i] = node
    return alone


def _spans(steps: list[fx.Node]) -> dict[str, tuple[int, int]]:
    """By module, its first and last step, where no step of another is between."""
    numbers: dict[str, list[int]] = {}
    for i, node in enumerate(steps):
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            numbers.setdefault(path.partition("@")[0], []).append(i)
    return {
        name: (found[0], found[-1])
        for name, found in numbers.items()
        if found[-1] - found[0] + 1 == len(found)
    }


def _blocks(
    name: str, module: nn.Module, spans: dict[str, tuple[int, int]], alone: dict[int, fx.Node]
) -> Iterator[tuple[tuple[int, int], nn.Module]]:
    """The smallest modules of several layers, with weights, between two places; else layers."""
    inside = [
        found
        for key, child in module.named_children()
        for found in _blocks(f"{name}.{key}".lstrip("."), child, spans, alone)
    ]
    span = spans.get(name)
    if (
        name
        and type(module) not in _CONTAINERS
        and span is not None
        and {span[0] - 1, span[1]} <= alone.keys()
        and next(module.parameters(), None) is not None
        and sum(1 for _, block in inside if list(block.children())) < 2
    ):
        yield span, module
    else:
        yield from inside


def _prefix(graph: fx.GraphModule, place: fx.Node) -> fx.GraphModule:
    part, copies = fx.Graph(), {}
    for node in graph.graph.nodes:
        copies[node] = part.node_copy(node, copies.__getitem__)
        if node is place:
            break
    part.output(copies[place])
    return _module(graph, part)


def _rest(graph: fx.GraphModule, place: fx.Node) -> fx.GraphModule:
    part, copies = fx.Graph(), {}
    taken = part.placeholder("features")
    if any(_writes_or_views(user) for user in place.users):  # what is given stays as it is
        taken = part.call_function(torch.ops.aten.clone.default, (taken,))
    steps = _steps(graph)
    before = set(steps[: steps.index(place) + 1])
    copies[place] = taken
    for node in graph.graph.nodes:
        if node in before:
            if _is_batch_size(node):
                copies[node] = part.call_function(torch.ops.aten.sym_size.int, (taken, 0))
        elif node.op == "output":
            (logits,) = node.all_input_nodes
            part.output(copies[logits])
        else:
            copies[node] = part.node_copy(node, copies.__getitem__)
    return _module(graph, part)


def _module(graph: fx.GraphModule, part: fx.Graph) -> fx.GraphModule:
    """A module of the part's nodes, with those of the parameters that it needs."""
    part.eliminate_dead_code()
    part.lint()
    module = fx.GraphModule(graph, part)
    return module.eval()


def _output(graph: fx.GraphModule) -> fx.Node:
    return next(node for node in graph.graph.nodes if node.op == "output")


def _is_batch_size(node: fx.Node) -> bool:
    """Whether a value is the number of images, which every part knows by itself."""
    return isinstance(node.meta.get("val"), torch.SymInt) and node.target is (
        torch.ops.aten.sym_size.int
    )


def _writes_or_views(node: fx.Node) -> bool:
    """Whether an operator changes what it is given, or returns a view of it."""
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(each.alias_info is not None for each in schema.arguments)
