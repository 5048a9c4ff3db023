"""Models that a function of the user makes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter

from torch import nn

from agflow._utils.nearest import did_you_mean
from agflow.errors import AgflowError, InvalidValueError

_FORMS = "timm:", "torchvision:", "hf:"  # of other names of models


def call_function(module: str, function: str) -> nn.Module:
    """Return the model that a function of a module makes, which may lie in the working folder.

    Raises
    ------
    InvalidValueError
        The module or the function cannot be found, raises, or gives no model.
    """
    spec = f"{module}:{function}"
    if module.endswith(".py"):
        raise InvalidValueError(
            f"model {spec} names a file: write {module.removesuffix('.py')}:{function}, which is "
            "looked for in the working folder"
        )
    with _working_folder_first():
        try:
            found = importlib.import_module(module)
        # A module runs code of any kind, which may also try to end the process.
        except (Exception, SystemExit) as error:
            reason = f"its module cannot be imported: {_first_line(error)}"
            if isinstance(error, ModuleNotFoundError) and error.name == module:
                reason += did_you_mean(f"{module}:", _FORMS)
            raise _not_made(spec, reason) from error
        try:
            make = attrgetter(function)(found)
        except AttributeError as error:
            names = [name for name in vars(found) if not name.startswith("_")]
            guess = did_you_mean(function, names)
            raise _not_made(spec, f"module {module} has no {function}{guess}") from error
        try:
            model = make()
        except AgflowError:
            raise
        except (Exception, SystemExit) as error:
            raise _not_made(spec, f"the call without arguments raised {_first_line(error)}") from (
                error
            )
    if not isinstance(model, nn.Module):
        raise InvalidValueError(f"{spec} gave a {type(model).__name__}, expected a torch.nn.Module")
    return model


@contextmanager
def _working_folder_first() -> Iterator[None]:
    """Look for modules in the working folder first, as ``python -m`` does; later, look there last.

    Last, since a model may import more of its own when it runs, and nothing of another library
    shall be found there instead.
    """
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _not_made(spec: str, reason: str) -> InvalidValueError:
    return InvalidValueError(
        f"model {spec} cannot be made ({reason}): expected module:function, a function without "
        "arguments that returns a torch.nn.Module, in the working folder or on Python's path"
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
