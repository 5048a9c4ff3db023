"""Kills what writes at random moments and looks at what is left: ``killing.py WHAT FOLDER TRIALS``.

Each process that is killed is a fork of this one, which has imported torch. Prints JSON.
"""

import json
import math
import os
import pathlib
import random
import signal
import sys
import time

import torch

import agflow
import agflow.recipes
from agflow import commands
from agflow._core import loader
from agflow._utils.folders import sha256_of
from agflow.cascade.folder import CASCADE_FOLDER
from agflow.cascade.predictions import Predictions
from agflow.data.datasets import EXAMPLE
from agflow.models.expert import EXPERT_FOLDER, load_expert
from agflow.recipes.run_folder import RUN_FOLDER

SMALL = {"data": "example:train", "limit": 256, "batch_size": 64, "label": None, "weights": None}


def save(output, seed):
    torch.manual_seed(seed)
    model, preprocessing, _ = agflow.load_model("example")
    with torch.no_grad():
        model.head.bias.normal_()
    agflow.save(model, output, preprocessing=preprocessing)


def design(output, seed):
    agflow.recipes.design(
        agflow.recipes.DesignOptions(
            str(output), limit=256, image_sizes=(16,), macs=(1.0,), epochs=1, seed=seed
        ),
        say=lambda line: None,
    )


def finetune(output, seed):
    options = {"heavy": "example", "light": str(EXAMPLE / "heavy"), "epochs": 1, "lr": 1e-4}
    others = {"distill": 0.5, "features": 0.0, "accumulate": 1, "seed": seed}
    checkpoint = {"checkpoint": f"{output}-checkpoint-{seed}"}
    found = commands.finetune(
        json.dumps({**SMALL, **options, **others, **checkpoint, "output": str(output)})
    )
    assert json.loads(found)["output"]
    os.unlink(checkpoint["checkpoint"])


def predict(output, seed):
    options = {"heavy": "example", "light": str(EXAMPLE / "heavy"), "seed": seed}
    others = {"features": False, "second_view": False, "output": str(output)}
    commands.predict(json.dumps({**SMALL, **options, **others}))


def export(output, seed):
    torch.manual_seed(seed)
    model, _, _ = agflow.load_model("example")
    with torch.no_grad():
        model.head.bias.normal_()
    agflow.export(model, output, format="torch")


def run(output, seed):
    options = {"macs": "0.5", "epochs": 0, "batches": 1, "limit": 256, "eval_limit": 64}
    agflow.recipes.run(
        agflow.recipes.RunOptions(output=str(output), seed=seed, **options), say=lambda line: None
    )


def check_expert(output):
    assert EXPERT_FOLDER.fault(output) is None and (output / "config.json").exists()
    load_expert(output)


def check_cascade(output):
    assert CASCADE_FOLDER.fault(output) is None
    agflow.load(output)


def check_run(output):
    """Every file is of the run that run.json names, and all are there if the report is."""
    assert RUN_FOLDER.fault(output) is None
    if (output / "report.json").exists():
        run = json.loads((output / "run.json").read_text())["run"]
        assert json.loads((output / "report.json").read_text())["run"] == run


WHAT = {
    "save": (save, check_expert),
    "design": (design, check_cascade),
    "finetune": (finetune, check_expert),
    "predict": (predict, Predictions.load),
    "export": (export, torch.export.load),
    "run": (run, check_run),
}


def forked(work, *arguments):
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        work(*arguments)
        os._exit(0)
    return child


def whole(work, *arguments):
    began = time.monotonic()
    _, status = os.waitpid(forked(work, *arguments), 0)
    assert status == 0, status
    return time.monotonic() - began


def temporaries(folder):
    """Names of temporaries in the folder and in those below it: a run fills its own in place."""
    found = [name for name in os.listdir(folder) if name.startswith(".agflow-")]
    for entry in os.scandir(folder):  # those found may go at any moment
        if entry.is_dir() and not entry.name.startswith(".agflow-"):
            found += [name for name in os.listdir(entry) if name.startswith(".agflow-")]
    return found


def killed(seconds, writes_after, folder, work, *arguments):
    """Whether a process was killed: after so many seconds, or as soon as it writes after others."""
    child = forked(work, *arguments)
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if passed > writes_after and temporaries(folder):
            time.sleep(random.uniform(0, 0.05))
            break
        if os.waitpid(child, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def digests(output):
    paths = [output] if output.is_file() else [p for p in output.rglob("*") if p.is_file()]
    return {str(path.relative_to(output)): sha256_of(path) for path in paths}


def main(what, folder, trials):
    work, check = WHAT[what]
    agflow.load_model("example")  # and with it all that is slow to import
    assert loader._core is None, "no fork may call the Go core after its parent has"
    folder = pathlib.Path(folder)
    output = folder / ("out.pt2" if what == "export" else "out.arrow")
    random.seed()
    seconds = whole(work, output, 1)
    found = {"kills": 0, "old": 0, "new": 0, "left": 0, "seconds": seconds}
    for trial in range(trials):
        old = digests(output)
        seed = trial + 2
        if trial % 2:
            moments = random.uniform(0, 1.2 * seconds), math.inf
        else:  # what is tried before the work leaves a trace, too
            moments = 3 * seconds, seconds / 3
        done = not killed(*moments, folder, work, output, seed)
        found["kills"] += not done
        checked = forked(check, output)  # apart: this process must not have called the Go core
        assert os.waitpid(checked, 0)[1] == 0, f"trial {trial} left half a thing"
        found["old" if digests(output) == old else "new"] += 1
        found["left"] += bool(temporaries(folder))
        if trial % 5 == 4 or trial == trials - 1:
            whole(work, output, seed)
            assert not temporaries(folder), temporaries(folder)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
