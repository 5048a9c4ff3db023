"""The machine and the versions that a figure belongs to, and the clock that measures it."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import re
import time
from collections.abc import Callable

import torch

from agflow._core.loader import backend_name, core

_LIBRARIES = ("agflow", "numpy", "torch", "numexpr", "torch-pruning", "timm", "pyarrow")


def describe() -> dict[str, str]:
    """CPU, cores that this process may use, agflow's kernel and backend, versions of the contenders."""
    return {
        "cpu": _cpu(),
        "cores": str(len(os.sched_getaffinity(0))),
        "kernel": core().kernel(),
        "backend": backend_name(),
        "python": platform.python_version(),
        **{name: version for name in _LIBRARIES if (version := _version(name))},
    }


def sentence(machine: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def clock(device: torch.device) -> Callable[[], float]:
    """Seconds of work on ``device``: the CPU's own where torch has one thread, so that other processes don't count; else the wall's."""
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
