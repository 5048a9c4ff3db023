"""Run once by pyhost inside the hosted interpreter, before anything else."""

import importlib
import json
import os
import signal
import sys
import traceback

sys.argv = ["agflow"]

# PyErr_SetInterrupt raises only what Python has a handler for. Go takes the signal itself back
# afterwards.
signal.signal(signal.SIGINT, signal.default_int_handler)


def _take_signals_in_child():
    """Give a forked child the signal handlers of a plain Python process: Go does not run in it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


os.register_at_fork(after_in_child=_take_signals_in_child)


def call(module, function, argument):
    """Return JSON {"result": …} of module.function(argument), or {"error": …} of its exception."""
    try:
        result = getattr(importlib.import_module(module), function)(argument)
        sys.stdout.flush()
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
