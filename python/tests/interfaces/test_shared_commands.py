"""The commands under torchrun: the files and figures of one process, written and said once."""

import json
import pathlib
import subprocess
import sys

import pytest

import agflow
from agflow.calibration import Statistics
from agflow.cascade import Predictions

SCRIPT = """
import json, os, sys
from agflow import commands
options = json.loads(sys.argv[1])
sys.stdout = open(f"{sys.argv[0]}.{os.environ.get('RANK', 0)}", "w")  # a pipe would mix the ranks
for name in sys.argv[2:]:
    answer = getattr(commands, name)(json.dumps(options[name]))
    print(name, answer, flush=True)
"""


def run(ranks, options, *names):
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    started = torchrun if ranks > 1 else []
    done = subprocess.run(
        [sys.executable, *started, options["script"], json.dumps(options), *names],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = [pathlib.Path(f"{options['script']}.{rank}") for rank in range(ranks)]
    said = "".join(file.read_text() for file in files)
    answers = [line.split(" ", 1) for line in said.splitlines()]
    return {
        name: [json.loads(answer) for of, answer in answers if of == name and answer != "null"]
        for name in names
    }


def options_for(folder, light):
    data = {"data": "example:test", "limit": 50, "seed": 0, "batch_size": 8}
    pair = {"light": str(light), "heavy": "example"}
    plain = {"image_size": None, "weight_gradients": False, "nonfinite": "refuse"}
    return {
        "script": str(folder / "script.py"),
        "calibrate": {
            "model": "example", **data, "batches": 5, "groups": ["mlp"], "loss": "labels", **plain,
            "output": str(folder / "statistics.arrow"),
        },
        "evaluate": {"model": "example", **data},
        "predict": {
            **pair, **data, "features": False, "second_view": False,
            "output": str(folder / "predictions.arrow"),
        },
        "finetune": {
            **pair, **data, "epochs": 1, "lr": 1e-4, "distill": 0.5, "features": 0.0,
            "accumulate": 1, "output": str(folder / "tuned"),
        },
    }  # fmt: skip


@pytest.mark.slow
def test_two_processes_write_and_say_what_one_does(tmp_path, light):
    expert = tmp_path / "light"
    agflow.save(light, expert)
    found, names = {}, ("calibrate", "evaluate", "predict", "finetune")
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        (folder / "script.py").write_text(SCRIPT)
        found[ranks] = run(ranks, options_for(folder, expert), *names)
        assert all(len(answers) == 1 for answers in found[ranks].values())  # one process says it
    assert found[1]["evaluate"] == found[2]["evaluate"]
    load = lambda ranks, kind, name: kind.load(tmp_path / str(ranks) / name)
    one, two = (load(ranks, Predictions, "predictions.arrow") for ranks in (1, 2))
    assert one == two and len(one) == 50
    one, two = (load(ranks, Statistics, "statistics.arrow") for ranks in (1, 2))
    assert abs(one["sum_abs_yg"] / two["sum_abs_yg"] - 1).max() < 1e-12
    tuned = agflow.load(tmp_path / "2" / "tuned")
    assert agflow.count_macs(tuned) == agflow.count_macs(light)
    assert len(agflow.models.expert_tuning(tmp_path / "2" / "tuned").split()) == 50
