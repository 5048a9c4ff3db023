"""Memory of this process: the peak of one action, and freed memory kept, so that contenders in turn don't pay for each other.

``python -m agflow.bench.memory REQUEST`` prints the peak of one way to run a step, in a process that does nothing else.
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
    """What ``action`` returns, and the greatest resident memory while it ran, in bytes above that before it."""
    gc.collect()
    _libc("malloc_trim", 0)  # what was freed before would hide what is needed now
    before = _memory("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    return action(), _memory("VmHWM") - before


def keep_freed() -> None:
    """From here on this process keeps the memory it frees.

    glibc gives large blocks back, and the next that needs them pays for fresh pages: models timed in turn are slowed, each as
    the history of the process has it (DeiT-Tiny, batch 32: by 5 % alone, by 20 % among smaller ones).
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
    return 1024 * int(found.group(1))


if __name__ == "__main__":
    main(sys.argv[1])
