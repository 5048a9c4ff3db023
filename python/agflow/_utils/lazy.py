"""Packages whose public names load at first use, so that importing a package stays cheap."""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # importing typing would take longer than all of ``import agflow``
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, str], submodules: tuple[str, ...] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Parameters
    ----------
    package : its ``__name__``
    homes : public name -> module below ``package`` that defines it
    submodules : packages and modules below ``package`` that load at first use, too
    """

    def load(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)
        if name in submodules:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load, lambda: sorted([*homes, *submodules])
