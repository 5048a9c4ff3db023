"""Machine and versions that a figure belongs to, and the clock that measures it."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
import time
from collections.abc import Callable, Iterable

import torch

from agflow._core.loader import backend_name, core

_LIBRARIES = ("agflow", "numpy", "torch", "numexpr", "torch-pruning", "timm", "pyarrow")


def describe() -> dict[str, str]:
    """CPU, usable cores, agflow's kernel and backend, and the contenders' versions, by name."""
    return {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": core().kernel(),
        "backend": backend_name(),
        "python": platform.python_version(),
        **versions(_LIBRARIES),
    }


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """The versions of those of the libraries that are installed, by name."""
    return {name: version for name in libraries if (version := _version(name))}


def sentence(machine: dict[str, str]) -> str:
    """What :func:`describe` found, on one line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def clock(device: torch.device) -> Callable[[], float]:
    """A clock of work on ``device``, in seconds.

    On a CPU with one torch thread it counts the CPU time of this process, so that other processes
    don't disturb it; otherwise the wall's time, on a GPU after its work is done.
    """
    if device.type == "cuda":

        def synchronised() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return synchronised
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _cpu() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    found = (
        re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)
        if info.exists()
        else None
    )
    return found.group(1) if found else platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
