"""Any classifier of images as a module: functions, exported programs, sessions of other runtimes.

Shape suffixes: B images, K classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from agflow.errors import UnsupportedModelError

_RUNNING = (
    nn.DataParallel,
    nn.parallel.DistributedDataParallel,
    torch.optim.swa_utils.AveragedModel,
)


def as_module(model: Any) -> nn.Module:
    """Return ``model`` as a module that maps images [B, C, H, W] to logits [B, K].

    A module is returned as it is. A function, or whatever else can be called, becomes one that
    gets the images as they come; a program of ``torch.export`` becomes its module. Modules that
    refuse ``train()`` and ``eval()``, as exported ones do, are wrapped and keep what they have.

    Raises
    ------
    UnsupportedModelError
        The object cannot be called: a name or a state dict, for instance.

    Examples
    --------
    >>> import torch
    >>> from agflow.models import as_module, model_logits
    >>> model_logits(as_module(lambda images: images.mean((2, 3))), torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 3])
    """
    if isinstance(model, torch.export.ExportedProgram):
        model = model.module()
    if isinstance(model, nn.Module) and not any(map(_refuses_modes, model.modules())):
        return model
    if isinstance(model, type) or not callable(model):
        raise UnsupportedModelError(
            f"the model is {model if isinstance(model, type) else f'a {type(model).__name__}'}, "
            "expected a module or a function of images [B, C, H, W] that returns logits [B, K]: "
            "load or construct it first"
        )
    return FunctionModule(model)


class FunctionModule(nn.Module):
    """A function of images as a module; where it is a module itself, one whose mode is fixed.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.callables import FunctionModule
    >>> FunctionModule(torch.relu)(torch.tensor([-1.0, 1.0]))
    tensor([0., 1.])
    """

    def __init__(self, function: Callable[[torch.Tensor], Any]):
        super().__init__()
        self.function = function

    def forward(self, images_BCHW: torch.Tensor) -> Any:
        return self.function(images_BCHW)

    def train(self, mode: bool = True) -> FunctionModule:
        """Set the flags of all modules inside without calling what they refuse."""
        for module in self.modules():
            module.training = mode
        return self


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside of what only runs it: on many devices, compiled, or averaged.

    Such are ``DataParallel`` and ``DistributedDataParallel``, what ``torch.compile`` returns,
    torch's ``AveragedModel`` and timm's ``ModelEma``. The model inside is the same object, so that
    its names have no prefix and what is changed in it is changed in the wrapper. Anything else is
    returned as it is: a module that holds a model may compute more than it does.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.callables import unwrapped
    >>> unwrapped(nn.DataParallel(nn.ReLU()))
    ReLU()
    """
    while (inside := _inside(model)) is not None:
        model = inside
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    """The model that a wrapper runs; None for what is none."""
    name = "_orig_mod"  # of torch.compile
    if isinstance(model, _RUNNING) or _is_average_of_timm(type(model)):
        name = "module"
    inside = getattr(model, name, None) if isinstance(model, nn.Module) else None
    return inside if isinstance(inside, nn.Module) else None


def _is_average_of_timm(kind: type) -> bool:
    return any(
        base.__module__ == "timm.utils.model_ema" and base.__name__.startswith("ModelEma")
        for base in kind.__mro__
    )


def function_name(function: Callable) -> str:
    """The name that a function has in its module, ``"stages:light"``; of others their class's.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.callables import function_name
    >>> function_name(torch.relu), function_name(torch.nn.ReLU())
    ('relu', 'ReLU')
    """
    while isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__code__"):
        return getattr(function, "__name__", type(function).__name__)
    return f"{function.__module__}:{function.__qualname__}"


def _refuses_modes(module: nn.Module) -> bool:
    return "train" in vars(module)
