"""The calls into the Go core, for both backends: a mirror of the Go package bridge/abi, held equal to it by a test.

An Arrow value is two int64 addresses, of its C array and its C schema (see :mod:`agflow.arrow`).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

from agflow.errors import InvalidValueError

ABI = 5
"""The number of this list; Go carries the same one."""

_INITIALS = {"yg": "YG"}  # Go writes initials in capitals

INT, FLOAT, TEXT = int, float, str
ARROW = (INT, INT)


@dataclass(frozen=True)
class Call:
    """One call: its arguments' types in order, and the type of its result."""

    name: str
    arguments: tuple[type, ...]
    result: type

    @property
    def go_name(self) -> str:
        return "".join(_INITIALS.get(word, word.capitalize()) for word in self.name.split("_"))

    def check(self, values: tuple[Any, ...]) -> list[int | float | str]:
        """The values as the types of the call.

        Raises
        ------
        InvalidValueError
            A number does not fit into 64 bits, or a text has no UTF-8 form.
        TypeError
            A value has another type, or there are too many or too few.
        """
        if len(values) != len(self.arguments):
            raise TypeError(f"{self.name} takes {len(self.arguments)} arguments, got {len(values)}")
        return [_CHECKS[kind](value) for kind, value in zip(self.arguments, values)]


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

CALLS = (
    Call("version", (), TEXT),
    Call("live_bytes", (), INT),
    Call("sessions", (), INT),
    Call("release_address", (), INT),
    Call("kernel", (), TEXT),
    Call("statistics_open", (TEXT,), INT),
    Call("statistics_add", (INT, INT, INT, *ARROW, *ARROW), INT),
    Call("statistics_add_sums", (INT, INT, INT, INT, *ARROW), INT),
    Call("statistics_add_weight", (INT, INT, INT, *ARROW), INT),
    Call("statistics_add_weight_gradient", (INT, INT, INT, *ARROW, *ARROW), INT),
    Call("statistics_table", (INT, *ARROW), INT),
    Call("statistics_close", (INT,), INT),
    Call("statistics_merge", (*ARROW, *ARROW, *ARROW), INT),
    Call("abs_yg", (INT, *ARROW, *ARROW, *ARROW), INT),
    Call("read_limit", (INT, *ARROW), INT),
    Call("top_k", (INT, INT, *ARROW, *ARROW), INT),
    Call("criteria", (), TEXT),
    Call("score", (TEXT, INT, *ARROW, *ARROW), INT),
    Call("plan", (TEXT, *ARROW, *ARROW, *ARROW), TEXT),
    Call("diff", (*ARROW, *ARROW), TEXT),
    Call("diagnose", (TEXT, *ARROW), TEXT),
    Call("stability", (TEXT, *ARROW), TEXT),
    Call("against_random", (TEXT,), TEXT),
    Call("priors", (FLOAT, *ARROW, *ARROW), INT),
    Call("feature_norms", (*ARROW, *ARROW), INT),
    Call("combine", (FLOAT, *ARROW, *ARROW, *ARROW), INT),
    Call("agreement", (*ARROW, *ARROW, *ARROW), INT),
    Call("fit_light_weight", (*ARROW, *ARROW, *ARROW), TEXT),
    Call("fit_temperature", (*ARROW, *ARROW), TEXT),
    Call("route", (TEXT, FLOAT, FLOAT, *ARROW, *ARROW), INT),
    Call("calibrate_router", (TEXT, *ARROW), TEXT),
    Call("write_router", (TEXT, TEXT), INT),
    Call("read_router", (TEXT,), TEXT),
    Call("curve", (TEXT, *ARROW, *ARROW), INT),
    Call("ledger", (TEXT,), TEXT),
    Call("rank", ARROW, TEXT),
    Call("evaluate_router", (TEXT, *ARROW), TEXT),
    Call("oracle", (TEXT, *ARROW), TEXT),
    Call("dynamic_range", ARROW, TEXT),
    Call("write_file", (TEXT, *ARROW), INT),
    Call("read_file", (TEXT, TEXT, *ARROW), INT),
)
