"""The functions behind the command load nothing that their command does not need."""

import json
import subprocess
import sys

import pytest

EVALUATE = {"model": "example", "data": "example:test", "limit": 8, "batch_size": 8, "seed": 0}
SCRIPT = """
import json, sys
from agflow import commands
commands.{name}({options!r})
print(json.dumps(sorted(sys.modules)))
"""


@pytest.fixture(scope="module")
def loaded():
    """Modules in a process that evaluated a model as ``agflow evaluate`` does."""
    script = SCRIPT.format(name="evaluate", options=json.dumps(EVALUATE))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module",
    [
        "matplotlib",
        "agflow.plotting",
        "agflow.exporting",
        "agflow.recipes",
        "agflow.bench",
        "agflow.training",
        "agflow.cascade",
        "agflow.search",
        "agflow.pruning.pruner",
        "torch_pruning",
        "onnx",
    ],
)
def test_evaluate_does_not_load(loaded, module):
    assert "agflow.evaluation.accuracy" in loaded
    assert module not in loaded


def test_no_command_loads_torch_before_it_runs():
    script = "import sys; from agflow import commands; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
