"""Names and numbers as users give them: several, or a single one without its tuple."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

from agflow.errors import InvalidValueError


def names_of(value: Any, what: str) -> tuple[str, ...]:
    """Read one name or several; a text is one name, never its letters.

    Raises
    ------
    InvalidValueError
        It is something else; ``what`` names it in the message.

    Examples
    --------
    >>> from agflow._utils.sequences import names_of
    >>> names_of("mlp", "groups"), names_of(["mlp", "heads"], "groups")
    (('mlp',), ('mlp', 'heads'))
    """
    names = (value,) if isinstance(value, str) else _items(value)
    if names is None or not all(isinstance(name, str) for name in names):
        raise InvalidValueError(
            f"{what} is {value!r:.80}, expected a name or a sequence of names, such as ('mlp',)"
        )
    return names


def numbers_of(value: Any, what: str) -> tuple[Any, ...]:
    """Read one number or several.

    Raises
    ------
    InvalidValueError
        It is something else, a text included; ``what`` names it in the message.

    Examples
    --------
    >>> from agflow._utils.sequences import numbers_of
    >>> numbers_of(0.5, "macs"), numbers_of([1.0, 0.5], "macs")
    ((0.5,), (1.0, 0.5))
    """
    numbers = (value,) if isinstance(value, Real) else _items(value)
    if numbers is None or not all(isinstance(number, Real) for number in numbers):
        raise InvalidValueError(
            f"{what} is {value!r:.80}, expected a number or a sequence of numbers, such as (0.5,)"
        )
    return tuple(numbers)


def _items(value: Any) -> tuple | None:
    """The items of a sequence; None of what is none."""
    if isinstance(value, (str, bytes, Mapping)):
        return None
    try:
        return tuple(value)
    except TypeError:
        return None
