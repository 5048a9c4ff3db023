"""The graph of a network's operators, by torch.export."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from agflow._utils.modes import evaluating, with_gradients
from agflow.errors import UnsupportedModelError


@with_gradients  # without them torch's transformers take a path of their own, in one operator
def exported(model: nn.Module, images: torch.Tensor) -> torch.export.ExportedProgram:
    """The graph of a network in evaluation mode; the model stays as it is.

    Parameters
    ----------
    model : any module of images; its weights are not copied
    images : [B, C, H, W], of the model's dtype and device; a single one is taken twice, so that no
        axis of size 1 stands for the batch

    Raises
    ------
    UnsupportedModelError : torch.export cannot read the model

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
    if len(images) == 1:
        images = images.repeat(2, *[1] * (images.ndim - 1))
    try:
        with evaluating(model), _attributes_kept(model), _silent(), torch.random.fork_rng([]):
            return torch.export.export(model, (images,), strict=False)
    except Exception as error:
        raise UnsupportedModelError(
            f"torch.export cannot read {type(model).__name__} on images of {list(images.shape)}: "
            f"{_in_short(error)}; its channels can be pruned once torch.export takes the model"
        ) from error


def _in_short(error: Exception) -> str:
    """The kind of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0][:200].rstrip(".") if lines else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Undo what the forward pass assigns to modules: under torch.export it is of no use."""
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
            if vars(module) != attributes:
                vars(module).clear()
                vars(module).update(attributes)
        for table, entries in tables:
            table.clear()
            table.update(entries)


@contextmanager
def _silent() -> Iterator[None]:
    """Neither warnings nor logs of torch.export."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
