"""Peak memory of one way to run a step, for a process that does nothing else: ``python -m agflow.bench.memory REQUEST``."""

from __future__ import annotations

import json
import pathlib
import re
import sys

import torch

from agflow.bench import calibration


def main(request: str) -> None:
    asked = json.loads(request)
    torch.set_num_threads(1)
    model, batch = calibration.build(asked["model"]), calibration.images(asked["model"], asked["batch_size"])
    step = {calibration.BARE: calibration.bare, calibration.FROZEN: calibration.bare_frozen, calibration.OURS: calibration.ours}[asked["name"]]
    step(model, [(batch[0][:1], batch[1][:1])])  # loads what the first step loads
    before = _memory("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    step(model, [batch, batch])
    print(_memory("VmHWM") - before)


def _memory(name: str) -> int:
    """Bytes, from the kernel's account of this process."""
    found = re.search(rf"^{name}:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(found.group(1))


if __name__ == "__main__":
    main(sys.argv[1])
