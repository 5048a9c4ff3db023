"""The backend of a Python that the ``agflow`` command hosts: C functions of the process itself."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from agflow._core.call import FLOAT, INT, TEXT, Call
from agflow._core.calls import ABI, CALLS
from agflow.errors import from_text

_C_TYPES = {INT: ctypes.c_int64, FLOAT: ctypes.c_double, TEXT: ctypes.c_char_p}


def hosted() -> bool:
    """Whether a Go process hosts this Python."""
    return hasattr(ctypes.CDLL(None), "agflow_abi_version")


class HostCore:
    """Has a method for every call, by its name in :mod:`agflow._core.calls`."""

    name = "host"

    def __init__(self) -> None:
        process = ctypes.CDLL(None)
        process.agflow_abi_version.restype = ctypes.c_int64
        found = process.agflow_abi_version()
        if found != ABI:
            raise ImportError(
                f"the agflow command that hosts this Python has abi {found}, the agflow package "
                f"needs abi {ABI}: install the same version of both"
            )
        process.agflow_abi_free.argtypes = [ctypes.c_void_p]
        process.agflow_abi_free.restype = None
        for call in CALLS:
            setattr(self, call.name, _method(call, process))


def _method(call: Call, process: ctypes.CDLL) -> Callable[..., Any]:
    function = process[f"agflow_call_{call.name}"]
    results = [ctypes.c_void_p, ctypes.c_void_p]  # where the number and the text go
    function.argtypes = [_C_TYPES[kind] for kind in call.arguments] + results
    function.restype = ctypes.c_int32

    def method(*values: Any) -> Any:
        arguments = [
            value.encode() if isinstance(value, str) else value for value in call.check(values)
        ]
        number, text = ctypes.c_int64(), ctypes.c_void_p()
        failed = function(*arguments, ctypes.byref(number), ctypes.byref(text))
        if not failed and call.result is INT:
            return number.value
        try:
            answer = ctypes.string_at(text).decode("utf-8", "replace")
        finally:
            process.agflow_abi_free(text)
        if failed:
            raise from_text(answer)
        return answer

    method.__name__ = call.name
    return method
