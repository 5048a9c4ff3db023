"""Run once by pyhost inside the hosted interpreter, before anything else."""

import importlib
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


def call(module, function, argument):
    """Return JSON {"result": …} of module.function(argument), or {"error": …} of its exception."""
    global _running
    try:
        work = getattr(importlib.import_module(module), function)
        _running = True
        try:
            result = work(argument)
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
