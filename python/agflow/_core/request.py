"""Requests to the core: JSON of what a caller gave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from agflow.errors import InvalidValueError


def request_json(values: Mapping[str, Any]) -> str:
    """The values as JSON; numpy's and torch's single numbers are taken as Python's.

    Raises
    ------
    InvalidValueError
        A value is none that JSON has; the message names it.
    """
    return json.dumps({name: _plain(name, value) for name, value in values.items()})


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(f"{name}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(name, item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    try:
        return value.item()
    except (AttributeError, ValueError, RuntimeError) as error:
        raise InvalidValueError(
            f"{name} is a {type(value).__name__}, expected a number, a text, true or false"
        ) from error
