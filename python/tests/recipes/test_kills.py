"""SIGKILL at random moments: the old or the new is there, whole, and nothing is left after."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

KILLING = pathlib.Path(__file__).parent / "killing.py"


@pytest.mark.slow
@pytest.mark.parametrize("what", ["save", "design", "finetune", "predict", "export", "run"])
def test_a_kill_at_any_moment_loses_nothing(what, tmp_path):
    trials = os.environ.get("AGFLOW_TRIALS", "5")
    command = [sys.executable, KILLING, what, tmp_path, trials]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + 120 * int(trials))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["kills"] > 0 and found["old"] + found["new"] == int(trials)
    print(what, found)
