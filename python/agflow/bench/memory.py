"""Peak memory of one action, and freed memory kept so that contenders don't pay for each other.

``python -m agflow.bench.memory REQUEST`` prints the peak of one step of
:mod:`agflow.bench.calibration`, in a process that does nothing else.
"""

from __future__ import annotations

import ctypes
import gc
import json
import pathlib
import re
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

from agflow.bench import calibration

Result = TypeVar("Result")

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


def main(request: str) -> None:
    """Print the peak memory of the step that ``request`` names, in bytes.

    Parameters
    ----------
    request : JSON object of model, batch_size and name, one of the contenders
    """
    asked = json.loads(request)
    torch.set_num_threads(1)
    model, batch = (
        calibration.build(asked["model"]),
        calibration.images(asked["model"], asked["batch_size"]),
    )
    step = {
        calibration.BARE: calibration.bare,
        calibration.FROZEN: calibration.bare_frozen,
        calibration.OURS: calibration.ours,
    }[asked["name"]]
    step(model, [(batch[0][:1], batch[1][:1])])  # loads what the first step loads
    print(peak_of(lambda: step(model, [batch, batch]))[1])


def peak_of(action: Callable[[], Result]) -> tuple[Result, int]:
    """Run ``action``; return its result and its peak resident memory.

    The peak is in bytes above the resident memory before the call.
    """
    gc.collect()
    _libc("malloc_trim", 0)  # what was freed before would hide what is needed now
    before = _memory("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    return action(), _memory("VmHWM") - before


def keep_freed() -> None:
    """Make this process keep the memory that it frees, from now on.

    glibc gives large blocks back, and the next allocation pays for fresh pages: models timed in
    turn are slowed, each by another amount (DeiT-Tiny, batch 32: by 5 % alone, by 20 % among
    smaller ones).
    """
    _libc("mallopt", _TRIM_THRESHOLD, 2**31 - 1)
    _libc("mallopt", _MMAP_MAX, 0)


def _libc(function: str, *arguments: int) -> None:
    """Call a function that glibc has; other libraries do without."""
    if hasattr(ctypes.CDLL(None), function):
        getattr(ctypes.CDLL(None), function)(*arguments)


def _memory(name: str) -> int:
    """Bytes, from the kernel's account of this process."""
    found = re.search(
        rf"^{name}:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text(), re.MULTILINE
    )
    assert found is not None  # Linux has it
    return 1024 * int(found.group(1))


if __name__ == "__main__":
    main(sys.argv[1])
