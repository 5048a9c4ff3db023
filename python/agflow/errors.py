"""Every error that agflow raises: an :class:`AgflowError` and, mostly, the fitting builtin.

The message says what was found, what was expected and what to do; ``code`` is the same short word
in Go and Python.
"""

from __future__ import annotations


class AgflowError(Exception):
    """Base of all errors of agflow."""

    code = "internal"

    def __str__(self) -> str:  # KeyError would show the message in quotes
        return str(self.args[0]) if self.args else ""


class InvalidValueError(AgflowError, ValueError):
    """An argument is out of its range, or an unknown name."""

    code = "value"


class ShapeError(AgflowError, ValueError):
    """A tensor or table has the wrong number of dimensions, rows or channels."""

    code = "shape"


class DtypeError(AgflowError, TypeError):
    """Values have the wrong data type."""

    code = "dtype"


class DeviceError(AgflowError, TypeError):
    """A tensor lies on a device that the call cannot read."""

    code = "device"


class NonFiniteError(AgflowError, ValueError):
    """Values are NaN or infinite."""

    code = "nonfinite"


class EmptyError(AgflowError, ValueError):
    """There is nothing to work on: no batches, no rows."""

    code = "empty"


class UnknownLayerError(AgflowError, KeyError):
    """A layer is not there, or lacks what the call needs of it."""

    code = "layer"


class BudgetError(AgflowError, ValueError):
    """No plan can meet the budget."""

    code = "budget"


class CorruptFileError(AgflowError, ValueError):
    """A file is damaged, changed or not one of agflow's."""

    code = "file"


class FileError(AgflowError, OSError):
    """The operating system refused to read or write a file."""

    code = "io"


class ClosedError(AgflowError, RuntimeError):
    """A session was closed before."""

    code = "closed"


class BusyError(AgflowError, RuntimeError):
    """A server's queue is full."""

    code = "busy"


class DeadlineError(AgflowError, TimeoutError):
    """A request was not answered in time."""

    code = "deadline"


class CancelledError(AgflowError, RuntimeError):
    """A call was ended by its caller, who raises the reason: KeyboardInterrupt, mostly."""

    code = "cancelled"


class ForkedProcessError(AgflowError, RuntimeError):
    """The Go core was called in a forked child process."""

    code = "fork"


class InternalError(AgflowError, RuntimeError):
    """A defect of agflow itself."""

    code = "internal"


class UnsupportedModelError(AgflowError, TypeError):
    """A model is built in a way that agflow cannot prune."""

    code = "model"


_BY_CODE = {kind.code: kind for kind in AgflowError.__subclasses__()}


def from_text(text: str) -> AgflowError:
    """The exception for an error text of the Go core, ``"agflow:<code>: <sentence>"``."""
    mark, _, rest = text.partition(":")
    code, separator, sentence = rest.partition(": ")
    if mark != "agflow" or not separator or code not in _BY_CODE:
        return InternalError(text)
    return _BY_CODE[code](sentence)
