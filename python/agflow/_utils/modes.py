"""Training and evaluation mode of modules; gradients on or off whatever the caller chose."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import nn

Function = TypeVar("Function", bound=Callable)
_CHECKPOINTING = "grad_checkpointing"


@contextmanager
def preserve_training_mode(*models: nn.Module) -> Iterator[None]:
    """Restore every submodule's own mode on exit; submodules may differ in theirs."""
    # Frozen modules of torch.jit have no mode until they are given one.
    modes = [
        (module, getattr(module, "training", False))
        for model in models
        for module in model.modules()
    ]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def forget_caches(model: nn.Module) -> None:
    """Let modules drop what they computed of their weights for evaluation mode (LeViT's biases).

    Those that keep such a thing drop it in ``train()``: it is computed anew in the next pass. The
    modes stay as they are.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow._utils.modes import forget_caches
    >>> layer = nn.Linear(2, 2).eval()
    >>> forget_caches(layer)
    >>> layer.training
    False
    """
    with preserve_training_mode(model):
        for module in model.modules():
            if "train" not in vars(module) and type(module).train is not nn.Module.train:
                module.train()


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put models that are in training mode into evaluation mode, and restore theirs on exit."""
    if not any(getattr(model, "training", False) for model in models):
        yield
        return
    with preserve_training_mode(*models):
        for model in models:
            model.eval()
        yield


@contextmanager
def without_checkpointing(model: nn.Module) -> Iterator[None]:
    """Let timm's models run each part once instead of again in the backward pass, as hooks need it.

    What they put out and its gradients are the same: only memory is given for time.
    """
    flagged = [m for m in model.modules() if vars(m).get(_CHECKPOINTING) is True]
    for module in flagged:
        setattr(module, _CHECKPOINTING, False)
    try:
        yield
    finally:
        for module in flagged:
            setattr(module, _CHECKPOINTING, True)


def with_gradients(function: Function) -> Function:
    """Run ``function`` with gradients, also inside ``torch.no_grad`` and ``inference_mode``."""

    @functools.wraps(function)
    def call(*arguments, **named):
        with torch.inference_mode(False), torch.enable_grad():
            return function(*arguments, **named)

    return cast(Function, call)


def without_gradients(function: Function) -> Function:
    """Run ``function`` without gradients; its tensors are ordinary ones, that autograd takes.

    ``torch.inference_mode`` saves next to nothing more, and what it makes is of no use outside.
    """

    @functools.wraps(function)
    def call(*arguments, **named):
        with torch.inference_mode(False), torch.no_grad():
            return function(*arguments, **named)

    return cast(Function, call)


def without_inference_tensors(model: nn.Module) -> nn.Module:
    """``model``, or its copy where it was made in ``torch.inference_mode``: autograd takes that."""
    tensors = (*model.parameters(), *model.buffers())
    if not any(tensor.is_inference() for tensor in tensors):
        return model
    # Python copies a buffer of that mode into another one, and a parameter into an ordinary one.
    return copy.deepcopy(model, {id(buffer): buffer.clone() for buffer in model.buffers()})
