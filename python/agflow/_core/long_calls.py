"""Long calls into the Go core end at once when Python handles a signal, such as Ctrl-C.

Python runs signal handlers in its main thread only, and not while that thread is inside a call. So
calls of the main thread that may take long run in a thread of their own, for which the main thread
waits: the wait ends with what a handler raises, mostly KeyboardInterrupt, and Go is asked to stop.
"""

from __future__ import annotations

import _thread  # a threading.Thread takes twice as long to start
import ctypes
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from agflow._core.loader import core

T = TypeVar("T")

WAIT = 0.05
"""Seconds of one wait. Signals end it, but not with libraries that catch them first (polars)."""

GRACE = 0.1
"""Seconds within which Go mostly has stopped; the exception is raised then, in any case."""


def interruptible(work: Callable[..., T], *arguments: Any) -> T:
    """Return ``work(*arguments)``, or raise what a signal handler raises meanwhile.

    Then Go is asked to stop. Whatever the work has made is released by its thread, also where Go
    takes longer to stop than the exception may wait. Calls of other threads go on.
    """
    if threading.get_ident() != threading.main_thread().ident:
        return work(*arguments)
    return _LongCall(work, arguments).result()


class _LongCall:
    def __init__(self, work: Callable[..., Any], arguments: tuple) -> None:
        self._work, self._arguments = work, arguments
        self._cancelled = ctypes.c_int32(0)
        self._running = _thread.allocate_lock()
        self._result: Any = None
        self._error: BaseException | None = None

    def result(self) -> Any:
        """Start the thread and wait for it."""
        self._running.acquire()
        try:
            _thread.start_new_thread(self._run, ())
            while not self._running.acquire(timeout=WAIT):
                pass  # handlers run here at the latest
        except BaseException:
            self._cancelled.value = 1
            self._running.acquire(timeout=GRACE)
            raise
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # its traceback refers to this object
        return self._result

    def _run(self) -> None:
        try:
            core().cancel_flag(ctypes.addressof(self._cancelled))
            try:
                self._result = self._work(*self._arguments)
            finally:
                core().cancel_flag(0)
        except BaseException as error:
            self._error = error
        finally:
            self._running.release()
