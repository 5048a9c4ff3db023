"""Default values of options: each stands once, in ``core/defaults/defaults.json``.

The agflow command reads the same file; the wheel has it as ``agflow/defaults.json``.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

DEFAULTS_FILE = Path(__file__).resolve().parents[1] / "defaults.json"


@cache
def _steps() -> dict[str, dict[str, Any]]:
    try:
        return json.loads(DEFAULTS_FILE.read_text())
    except FileNotFoundError as error:
        raise ImportError(
            f"{DEFAULTS_FILE} is missing, expected the file of all default values: build agflow "
            "with `make native` or install it with pip"
        ) from error


def default(step: str, option: str) -> Any:
    """Look up the default of an option of a step; a list becomes a tuple.

    Raises
    ------
    ImportError
        The package was not built: it has no ``defaults.json``.

    Examples
    --------
    >>> default("finetune", "epochs"), default("calibrate", "groups")
    (3, ('mlp', 'heads', 'conv'))
    """
    value = _steps()[step][option]
    return tuple(value) if isinstance(value, list) else value
