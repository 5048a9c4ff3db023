"""One signal ends any command, at any moment: its status, one line, no leftovers, soon."""

import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest
from torch.utils.data import DataLoader

import agflow
from agflow._core import arrow
from agflow._core.loader import core

TRIALS = int(os.environ.get("AGFLOW_TRIALS", "5"))
SOON = 2.0  # seconds
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORDS = {signal.SIGINT: "agflow: interrupted", signal.SIGTERM: "agflow: terminated"}
TINY = ["--limit", "128"]
HOSTED = {
    "evaluate": ["evaluate", *TINY],
    "calibrate": ["calibrate", *TINY, "--output", "new/statistics.arrow"],
    "prune": ["prune", *TINY, "--plan", "plan.arrow", "--output", "new/light"],
    "predict": ["predict", *TINY, "--light", "light", "--output", "new/predictions.arrow"],
    "finetune": ["finetune", *TINY, "--epochs", "1", "--light", "light", "--output", "new/tuned"],
    "run": ["run", *TINY, "--epochs", "1", "--output", "new/run"],
    "export": ["export", "--output", "new/model.onnx"],
    "design": ["design", *TINY, "--epochs", "1", "--output", "new/design"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a plan and a light expert."""
    folder = tmp_path_factory.mktemp("signals")
    model, preprocessing, _ = agflow.load_model("example")
    images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=32)
    plan = agflow.plan(agflow.calibrate(model, DataLoader(images, 32)), macs=0.5)
    plan.save(folder / "plan.arrow")
    light = agflow.prune(model, plan, compensate="none")
    agflow.save(light, folder / "light", plan=plan, preprocessing=preprocessing)
    return folder


@dataclass
class Ended:
    """How a command ended: a status of None where it was done before the signal."""

    status: int | None
    said: str = ""
    seconds: float = 0.0

    def fault(self, number):
        """What is wrong with this end; nothing, mostly.

        Before the command has begun, the signal itself ends the process, which shells show as the
        same status, or a Python that starts the command says where it was.
        """
        if self.status is None or self.status == -number:
            return None
        *progress, last = self.said.strip().split("\n")
        fine = self.status == STATUS[number] and last in ("", WORDS[number])
        dumped = any(line.startswith(("Traceback", "SIGABRT")) for line in progress)
        return None if fine and not dumped and self.seconds < SOON else f"{number.name}: {self}"


def signalled(command, place, number, after, second=None):
    """Start a command, and send it a signal or two."""
    shutil.rmtree(place / "new", ignore_errors=True)
    (place / "new").mkdir()
    process = subprocess.Popen(
        command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        process.wait(after)
        process.communicate()
        return Ended(None)
    except subprocess.TimeoutExpired:
        begin = time.monotonic()
    process.send_signal(number)
    if second is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(second)
        process.send_signal(number)
    _, said = process.communicate(timeout=60)  # all that hold its stderr have ended then
    return Ended(process.returncode, said, time.monotonic() - begin)


def check_files(place):
    """Every file under its own name is whole; return how many temporaries are left."""
    for path in (place / "new").rglob("*.arrow"):
        if not any(part.startswith(".") for part in path.relative_to(place).parts):
            arrow.call_for_batch(core().read_file, os.fspath(path), "")
    return sum(path.name.startswith(".") for path in (place / "new").rglob("*"))


def trials(place, commands, latest, second=False):
    """Send signals at random moments and report what became of them."""
    drawn, ends, faults, left = random.Random(0), collections.Counter(), [], 0
    slowest = 0.0
    for _ in range(TRIALS):
        name, number = drawn.choice(sorted(commands)), drawn.choice(sorted(STATUS))
        after = drawn.uniform(0, latest)
        again = drawn.uniform(0, 0.5) if second else None
        end = signalled(["agflow", *commands[name]], place, number, after, again)
        ends[end.status] += 1
        slowest = max(slowest, end.seconds)
        left += check_files(place)
        if fault := end.fault(number):
            faults.append(f"agflow {name} after {after:.2f} s: {fault}")
    print(f"{TRIALS} trials: {dict(ends)}, slowest {slowest:.2f} s, {left} temporaries left")
    assert not faults, "\n".join(faults)


@pytest.mark.slow
def test_a_signal_at_any_moment(place):
    trials(place, HOSTED, 8.0)


@pytest.mark.slow
def test_two_signals_at_any_moment(place):
    trials(place, HOSTED, 8.0, second=True)


@pytest.mark.slow
def test_a_signal_in_imports(place):
    trials(place, {"evaluate": HOSTED["evaluate"]}, 3.0)


@pytest.mark.slow
def test_a_signal_in_the_steps_on_files(place):
    trials(place, {"plan": ["doctor"], "verify": ["verify", *["plan.arrow"] * 2000]}, 0.5)


def test_the_launcher_ends_with_the_status_of_the_signal():
    for number, status in STATUS.items():
        script = (
            "import os, time\n"
            "from agflow import _launcher\n"
            "_launcher.libpython = lambda: print('ready', flush=True) or time.sleep(60)\n"
            "_launcher.main()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout and process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=60) == (b"", b"")
        assert process.returncode == status
