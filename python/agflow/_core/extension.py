"""The backend of a plain Python process: the extension module that carries the Go core."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from agflow._core.call import Call
from agflow._core.calls import ABI, CALLS
from agflow.errors import from_text


class ExtensionCore:
    """Has a method for every call, by its name in :mod:`agflow._core.calls`."""

    name = "extension"

    def __init__(self) -> None:
        native = _native_module()
        methods = {call.name: _method(call, native) for call in CALLS}
        vars(self).update(methods)
        found = methods["version"]()
        if not found.endswith(f" abi {ABI}"):
            raise ImportError(
                f"agflow's native part is {found}, this Python part needs abi {ABI}: build both "
                "again (pip install, or `make native` in the sources)"
            )


def _native_module() -> Any:
    try:
        return importlib.import_module("agflow._core._native")
    except ImportError as error:
        raise ImportError(
            f"agflow's native part cannot be loaded ({error}): install agflow with the Python that "
            "runs here (pip install), or run `make native` in the sources"
        ) from error


def _method(call: Call, native: Any) -> Callable[..., Any]:
    function = getattr(native, f"native_{call.go_name}")

    def method(*values: Any) -> Any:
        try:
            return function(*values)
        except RuntimeError as error:
            raise from_text(str(error)) from None
        except (TypeError, ValueError, OverflowError):
            call.check(values)  # the extension's own message does not name the argument
            raise

    method.__name__ = call.name
    return method
