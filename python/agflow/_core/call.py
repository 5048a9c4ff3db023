"""One call into the Go core: its name, the types of its arguments and of its result."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from agflow.errors import InvalidValueError

INT, FLOAT, TEXT = int, float, str
ARROW = (INT, INT)
"""An Arrow value: the addresses of its C array and of its C schema."""


@dataclass(frozen=True)
class Call:
    """One call: its names in Python and Go, its arguments' types in order, its result's type."""

    name: str
    go_name: str
    arguments: tuple[type, ...]
    result: type

    def check(self, values: tuple[Any, ...]) -> list[int | float | str]:
        """Return the values as the types of the call.

        Raises
        ------
        InvalidValueError
            A number does not fit into 64 bits, or a text has no UTF-8 form.
        TypeError
            A value has another type, or there are too many or too few.
        """
        if len(values) != len(self.arguments):
            raise TypeError(f"{self.name} takes {len(self.arguments)} arguments, got {len(values)}")
        return [_CHECKS[kind](value) for kind, value in zip(self.arguments, values, strict=True)]


def _integer(value: Any) -> int:
    number = operator.index(value)
    if not -(2**63) <= number < 2**63:
        raise InvalidValueError(f"{number} does not fit into 64 bits: pass a smaller number")
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected str, got {type(value).__name__}")
    if "\0" in value:
        raise InvalidValueError(f"{value!r} holds a NUL character: pass a text without it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError(
            f"{value!r} has no UTF-8 form: rename the file or folder"
        ) from error
    return value


_CHECKS = {INT: _integer, FLOAT: float, TEXT: _text}
