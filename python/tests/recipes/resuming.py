"""Kills runs at random moments until they end: ``resuming.py WHAT FOLDER KILLS``.

Each then ends with the bytes of a run that nobody killed. The clock is stopped: measured times are
all that may differ between two runs. Prints JSON.
"""

import collections
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time

import PIL.Image
import pyarrow as pa
from killing import digests, temporaries, whole

import agflow
import agflow.recipes
from agflow._core import loader
from agflow._utils.json_file import read_json
from agflow.cascade.folder import CASCADE_FOLDER
from agflow.evaluation.timing import Timing
from agflow.recipes import design_steps, pipeline
from agflow.recipes.run_folder import RUN_FOLDER

KILLS_OF_A_RUN = 10


def stopped_clock(contenders, x, batch):
    return {name: Timing((1.0, 1.0), len(x)) for name in contenders}


def run(output):
    options = {"macs": "0.5", "epochs": 3, "batches": 1, "limit": 96, "eval_limit": 32}
    agflow.recipes.run(agflow.recipes.RunOptions(output=str(output), **options), say=quiet)


def design(output):
    space = {"image_sizes": (16,), "macs": (1.0, 0.5), "epochs": 2}
    agflow.recipes.design(agflow.recipes.DesignOptions(str(output), limit=128, **space), say=quiet)


def quiet(line):
    pass


def check_run(output):
    """What is there is whole, a report only where all else is; the last step that was done."""
    assert RUN_FOLDER.fault(output) is None, RUN_FOLDER.fault(output)
    for picture in output.glob("*.png"):
        PIL.Image.open(picture).load()
    for table in output.rglob("*.arrow"):
        with pa.memory_map(str(table)) as source:
            pa.ipc.open_file(source).read_all()
    steps = steps_of(output)
    if (output / "report.json").exists():
        assert json.loads((output / "report.json").read_text())["run"]
        assert "cascade" in steps and (output / "report.md").exists()
    return steps[-1] if steps else "nothing"


def check_design(output):
    """The cascade folder is not there, or whole; the last step that was done."""
    if output.exists():
        assert CASCADE_FOLDER.fault(output) is None
        agflow.load(output)
        return "finished"
    steps = steps_of(output.with_name(f"{output.name}.partial"))
    return steps[-1] if steps else "nothing"


def steps_of(folder):
    if not (folder / "run.json").exists():
        return []
    return list(read_json(folder / "run.json", "run file", RUN_FOLDER.keys).get("steps", {}))


WHAT = {"run": (run, check_run), "design": (design, check_design)}


def start(work, output):
    """A process of a group of its own, which a kill ends as a whole."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        work(output)
        os._exit(0)
    return child


def killed(seconds, work, output):
    """Whether a process was killed after so many seconds, before it ended."""
    child = start(work, output)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, status
            return False
        time.sleep(0.001)
    os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def in_process(check, output):
    """What ``check`` returns in a process of its own: this one must not have called the Go core."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(check(output)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        found = file.read()
    assert os.waitpid(child, 0)[1] == 0, "half a thing was left"
    return json.loads(found)


def main(what, folder, kills):
    pipeline.time_models = design_steps.time_models = stopped_clock
    work, check = WHAT[what]
    agflow.load_model("example")  # and with it all that is slow to import
    assert loader._core is None, "no fork may call the Go core after its parent has"
    output = pathlib.Path(folder) / "out"
    seconds = whole(work, output)
    expected = digests(output)
    found = {"runs": 0, "kills": 0, "seconds": round(seconds, 1), "left": 0}
    after: collections.Counter[str] = collections.Counter()
    while found["kills"] < kills:
        shutil.rmtree(output)
        for _ in range(KILLS_OF_A_RUN):
            if found["kills"] == kills or not killed(random.uniform(0, seconds / 4), work, output):
                break
            found["kills"] += 1
            found["left"] += output.exists() and bool(temporaries(output))
            after[in_process(check, output)] += 1
        whole(work, output)
        assert digests(output) == expected, "other bytes"
        assert os.listdir(folder) == ["out"] and not temporaries(output)
        found["runs"] += 1
    print(json.dumps({**found, "after": after}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
