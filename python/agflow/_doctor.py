"""Checks of the Python that the command hosts, for ``agflow doctor``."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import pathlib
import re
import sys

LIBRARIES = ("numpy", "pyarrow", "torch", "timm", "safetensors", "PIL", "matplotlib", "tqdm")


def report(_options: str) -> str:
    """Run all checks; returns a JSON list of their name, ok, found and cure."""
    checks = [_python(), _package(), _backend(), *map(_library, LIBRARIES)]
    return json.dumps(checks)


def _check(name: str, found: str, cure: str = "") -> dict:
    """A check's result; it has failed when it names a cure."""
    return {"name": name, "ok": not cure, "found": found, "cure": cure}


def _python() -> dict:
    return _check("python", f"{sys.version.split()[0]} in {sys.prefix}, {_libpython()}")


def _libpython() -> str:
    maps = pathlib.Path("/proc/self/maps")
    found = re.search(r"/\S*libpython\S*", maps.read_text()) if maps.exists() else None
    return found.group() if found else "libpython unknown"


def _package() -> dict:
    folder = pathlib.Path(__file__).parent
    try:
        return _check("package", f"{importlib.metadata.version('agflow')} in {folder}")
    except importlib.metadata.PackageNotFoundError:
        return _check(
            "package", f"{folder} is not installed", f"{sys.executable} -m pip install agflow"
        )


def _backend() -> dict:
    try:
        from agflow._core.loader import backend_name

        name = backend_name()
    except Exception as error:
        return _check(
            "backend",
            f"{type(error).__name__}: {error}",
            f"{sys.executable} -m pip install --force-reinstall --no-deps agflow",
        )
    if "agflow._core._native" in sys.modules:
        return _check(
            "backend",
            f"{name}, but the extension is loaded too",
            "do not import agflow._core._native: it is a second Go runtime",
        )
    return _check("backend", name)


def _library(name: str) -> dict:
    try:
        library = importlib.import_module(name)
    except Exception as error:  # a broken library may raise anything at import
        package = {"PIL": "pillow"}.get(name, name)
        return _check(
            name, f"{type(error).__name__}: {error}", f"{sys.executable} -m pip install {package}"
        )
    return _check(name, getattr(library, "__version__", "version unknown"))
