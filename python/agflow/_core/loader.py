"""Chooses the backend, once, at the first call: a process must never hold two Go runtimes.

Nothing here loads Go at import, so that processes that only import agflow may fork freely.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from agflow._core.extension import ExtensionCore
from agflow._core.host import HostCore, hosted
from agflow.errors import ForkedProcessError

_lock = threading.Lock()
_core: ExtensionCore | HostCore | None = None
_forked = False


def core() -> Any:
    """The Go core: an object with a method for every call of :mod:`agflow._core.calls`.

    For type checkers it is Any: the methods are made of the list of calls.

    Raises
    ------
    ForkedProcessError
        This process was forked from one that had loaded the core; Go does not survive a fork.
    ImportError
        The native part is missing or of another version.
    """
    global _core
    if _forked:
        raise ForkedProcessError(
            "the Go core cannot run in a forked child process: use multiprocessing_context='spawn' "
            "or 'forkserver', or call agflow in the parent only"
        )
    if _core is None:
        with _lock:
            if _core is None:
                _core = HostCore() if hosted() else ExtensionCore()
    return _core


def backend_name() -> str:
    """``"extension"`` in a plain Python, ``"host"`` under the agflow command."""
    return core().name


def _after_fork_in_child() -> None:
    global _forked, _lock
    _lock = threading.Lock()
    _forked = _forked or hosted() or "agflow._core._native" in sys.modules


os.register_at_fork(after_in_child=_after_fork_in_child)
