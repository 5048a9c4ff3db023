"""Run once by pyhost inside the hosted interpreter, before anything else."""

import ctypes
import gc
import importlib
import itertools
import json
import os
import signal
import sys
import traceback

sys.argv = ["agflow"]
_running = False  # whether a call runs that KeyboardInterrupt can end


def _take_handlers():
    """Install the handlers that pyhost calls; in this moment a signal ends the process, too."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)


def _drop_handlers():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _interrupt(number, frame):
    """Raise KeyboardInterrupt, but never outside of a call or in an import.

    Modules that are being imported swallow it, turn it into another exception or, in C++, abort.
    Nothing is half-written there, or atomic writers have it under a temporary name.
    """
    if not _running:
        what = "interrupted" if number == signal.SIGINT else "terminated"
        os.write(2, f"agflow: {what}\n".encode())
        os._exit(128 + number)
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.kill(os.getpid(), number)  # the command ends at once at a second signal
            return
        frame = frame.f_back
    raise KeyboardInterrupt


def _take_signals_in_child():
    """Give a forked child the signal handlers of a plain Python process: Go does not run in it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_take_signals_in_child)


_objects = {}  # those that calls of Go refer to, by their keys
_keys = itertools.count(1)


def call(module, function, argument):
    """Return JSON {"result": …} of module.function(argument), or {"error": …} of its exception."""
    return _outcome(lambda: getattr(importlib.import_module(module), function), argument)


def create(module, function, argument):
    """Keep the object that module.function(argument) returns; the result is its key."""
    return _outcome(lambda: getattr(importlib.import_module(module), function), argument, _keep)


def use(key, method, argument):
    """Return JSON {"result": …} of a method of a kept object, or {"error": …} of its exception."""
    return _outcome(lambda: getattr(_objects[key], method), argument)


def drop(key):
    """Forget a kept object."""
    return _outcome(lambda: _objects.pop, key, lambda _: "")


def _keep(made):
    key = str(next(_keys))
    _objects[key] = made
    return key


def fill(key, method, *lent):
    """Call a method of a kept object with memory that is Go's again when this function returns.

    Each lent memory is "address:bytes"; the last one may be written. It returns empty text, or JSON
    {"error": …} of an exception; with "kept", something still refers to the memory.
    """
    outcome, memory = {}, [_at(*map(int, place.split(":"))) for place in lent]
    try:
        views = [memoryview(part).cast("B").toreadonly() for part in memory[:-1]]
        getattr(_objects[key], method)(*views, memoryview(memory[-1]).cast("B"))
    except BaseException as error:
        outcome["error"] = _describe(error)
    views = None
    if _referred(memory) and (gc.collect() or _referred(memory)):
        kept = {"type": "BufferError", "message": f"{method} keeps memory that was lent to it"}
        outcome = {"error": {**kept, "code": "", "traceback": ""}, **outcome, "kept": True}
    return json.dumps(outcome) if outcome else ""


def _at(address, size):
    return (ctypes.c_ubyte * size).from_address(address)


def _referred(memory):
    """Whether a view or an array of any lent memory is left."""
    # the list, the variable and the argument of getrefcount refer to it, too
    return any(sys.getrefcount(part) > 3 for part in memory)


def _outcome(find, argument, read=lambda result: result):
    """JSON of the text that ``read`` makes of the result of a call, or of its exception."""
    global _running
    try:
        work = find()
        _running = True
        try:
            result = read(work(argument))
            sys.stdout.flush()
        finally:
            _running = False
        return json.dumps({"result": result})
    except BaseException as error:
        error.__traceback__ = error.__traceback__.tb_next  # without this function's own frame
        return json.dumps({"error": _describe(error)})


def _describe(error):
    ours = type(error).__module__.partition(".")[0] == "agflow"
    return {
        "type": type(error).__name__,
        "message": str(error),
        "code": str(getattr(error, "code", "")) if ours else "",
        "traceback": "".join(traceback.format_exception(error)),
    }
