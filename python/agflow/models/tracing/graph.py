"""The graph of a network's operators, by torch.export."""

from __future__ import annotations

import inspect
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import cast

import torch
from torch import nn

from agflow._utils.modes import evaluating, forget_caches, with_gradients
from agflow.errors import UnsupportedModelError
from agflow.models.sharing import modules_by_first_name, shared_names
from agflow.models.tracing.uses import callers

_higher_order = torch.ops.higher_order
_HOLDERS = {_higher_order.wrap_with_set_grad_enabled: 1, _higher_order.wrap_with_autocast: 4}
"""By operator that runs a graph, where among its arguments that is; its operands follow."""
_ENABLED = 2  # among the arguments of autocast


@with_gradients  # without them torch's transformers take a path of their own, in one operator
def exported(model: nn.Module, images: torch.Tensor) -> torch.export.ExportedProgram:
    """The graph of a network in evaluation mode; the model stays as it is.

    Parameters
    ----------
    model : any module of images; its weights are not copied
    images : [B, C, H, W], of which only the shape counts: they go to the device and the dtype of
        the model's parameters; a single one is taken twice, since an axis of size 1 would be taken
        for one that broadcasts

    Raises
    ------
    UnsupportedModelError : torch.export cannot read the model, or it does not run on images

    Examples
    --------
    >>> import torch
    >>> from agflow.models.tracing.graph import exported
    >>> program = exported(torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 16, 16))
    >>> [node.name for node in program.graph.nodes if node.op == "call_function"]
    ['conv2d']
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            f"{type(model).__name__} is a TorchScript module, which torch.export does not read: "
            "give the Python module that it was made from"
        )
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.is_floating_point():
        images = images.to(parameter)
    if len(images) == 1:
        images = images.repeat(2, *[1] * (images.ndim - 1))
    try:
        with evaluating(model), _attributes_kept(model), _silent(), torch.random.fork_rng([]):
            return _named_once(model, _flat(torch.export.export(model, (images,), strict=False)))
    except Exception as error:
        found = f"{type(model).__name__} on images of {list(images.shape)}"
        raise UnsupportedModelError(
            _does_not_run(model, images)
            or f"torch.export cannot read {found}: {_in_short(error)}; its channels can be pruned "
            "once torch.export takes the model"
        ) from error


@torch.no_grad()
def _does_not_run(model: nn.Module, images: torch.Tensor) -> str | None:
    """What to say of a model that wants something else than images; None where it runs on them."""
    try:
        with evaluating(model), _attributes_kept(model), _silent():
            model(images)
    except Exception as error:
        inputs = list(inspect.signature(model.forward).parameters)
        return (
            f"{type(model).__name__} does not run on images of {list(images.shape)} alone "
            f"({_in_short(error)}): its forward takes {', '.join(inputs[:3])}; give images of its "
            "size, or wrap it in a module whose forward makes its inputs of images"
        )
    return None


def _flat(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The operators under ``torch.no_grad`` and their like in the graph itself instead of inner."""
    graph = program.graph
    while (node := next(filter(_holds_a_graph, graph.nodes), None)) is not None:
        holder, *operands = node.args[_HOLDERS[node.target] :]
        own = cast(torch.fx.GraphModule, program.graph_module.get_submodule(holder.target)).graph
        holders = (n for n in own.nodes if n.op == "placeholder")
        with graph.inserting_before(node):
            copied = graph.graph_copy(own, dict(zip(holders, operands, strict=True)))
        results = cast("tuple[torch.fx.Node, ...]", copied)
        for place in list(node.users):
            result, name = results[place.args[1]], place.name
            place.replace_all_uses_with(result)
            graph.erase_node(place)
            result.name = name  # by which the program's signature knows its outputs
        graph.erase_node(node)
        if not holder.users:
            graph.erase_node(holder)
    program.graph_module.recompile()
    return program


def _named_once(
    model: nn.Module, program: torch.export.ExportedProgram
) -> torch.export.ExportedProgram:
    """Give each module and tensor with several names its first one, in all places of the graph.

    All calls of a shared module then count as its own, and all uses of a tied weight.
    """
    modules = modules_by_first_name(model)
    tensors = {name: names[0] for names in shared_names(model) for name in names}
    if not tensors and all(name == first for name, first in modules.items()):
        return program
    for spec in program.graph_signature.input_specs:
        spec.target = tensors.get(spec.target or "", spec.target)
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if stack:
            node.meta["nn_module_stack"] = {
                key: (modules.get(path, path), kind) for key, (path, kind) in stack.items()
            }
    return program


def path_of(program: torch.export.ExportedProgram) -> list[tuple]:
    """The operators that images go through, each with its modules, and the shapes of the outputs.

    Those of constants alone, such as embeddings of positions that are fitted to a size, are none.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.tracing.graph import exported, path_of
    >>> path_of(exported(torch.nn.ReLU(), torch.zeros(2, 3, 8, 8)))
    [(<OpOverload(op='aten.relu', overload='default')>, ('',)), torch.Size([2, 3])]
    """
    images = set(program.graph_signature.user_inputs)
    reached: set[torch.fx.Node] = set()
    for node in program.graph.nodes:
        if node.name in images or not reached.isdisjoint(node.all_input_nodes):
            reached.add(node)
    called = [n for n in program.graph.nodes if n.op == "call_function" and n in reached]
    outputs = next(node for node in program.graph.nodes if node.op == "output").all_input_nodes
    return [
        *((node.target, tuple(callers(node))) for node in called),
        *(_without_places(node.meta["val"].shape) for node in outputs),
    ]


def _without_places(shape: torch.Size) -> torch.Size:
    """The shape of an output; of maps, batch and channels."""
    return shape[:2] if len(shape) == 4 else shape


def _holds_a_graph(node: torch.fx.Node) -> bool:
    """Whether a node runs operators of a graph of its own, which are the same without it."""
    if node.target is _higher_order.wrap_with_autocast:
        return node.args[_ENABLED] is False
    return node.target in _HOLDERS


def runs_under_autocast(program: torch.export.ExportedProgram) -> bool:
    """Whether the model itself turns autocast on, by which its layers are no part of the graph."""
    return any(node.target is _higher_order.wrap_with_autocast for node in program.graph.nodes)


def _in_short(error: Exception) -> str:
    """What stopped torch.export: the kind of the error and the first line of its message."""
    if "DataDependent" in type(error).__name__:
        return "its forward pass branches on values that it computes from the images"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:200].rstrip(".") if lines else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Undo what the forward pass assigns to modules: under torch.export it is of no use."""
    forget_caches(model)  # they would be constants of the graph
    before = [(module, dict(vars(module))) for module in model.modules()]
    tables = [
        (table, dict(table))
        for _, attributes in before
        for name in ("_parameters", "_buffers", "_modules")
        if (table := attributes.get(name)) is not None
    ]
    try:
        yield
    finally:
        for module, attributes in before:
            _restore(vars(module), attributes)
        for table, entries in tables:
            _restore(table, entries)
        forget_caches(model)


def _restore(table: dict, entries: dict) -> None:
    for key in table.keys() - entries.keys():
        del table[key]
    for key, value in entries.items():
        if key not in table or table[key] is not value:
            table[key] = value


@contextmanager
def _silent() -> Iterator[None]:
    """Neither warnings nor logs of torch.export, nor the graphs that it prints when it fails."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
