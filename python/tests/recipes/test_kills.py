"""SIGKILL at random moments: the old or the new is there, whole, and nothing is left after."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

KILLING, RESUMING = (pathlib.Path(__file__).parent / name for name in ("killing.py", "resuming.py"))


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


@pytest.mark.slow
@pytest.mark.parametrize("what", ["run", "design"])
def test_a_run_that_is_killed_goes_on_and_ends_with_the_same_bytes(what, tmp_path):
    kills = os.environ.get("AGFLOW_TRIALS", "4")
    command = [sys.executable, RESUMING, what, tmp_path, kills]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300 + 120 * int(kills))
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["kills"] == int(kills)
    print(what, found)
