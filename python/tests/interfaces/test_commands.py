"""The functions behind the command load nothing that their command does not need."""

import json
import subprocess
import sys

import pytest
from pictures import picture

import agflow
from agflow import commands
from agflow.errors import DeviceError, InvalidValueError

EVALUATE = {"model": "example", "data": "example:test", "limit": 8, "batch_size": 8, "seed": 0}
SCRIPT = """
import json, sys
import agflow
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


def evaluated(**options):
    return json.loads(commands.evaluate(json.dumps({**EVALUATE, **options})))


def test_the_output_says_what_was_used():
    plain, mixed = evaluated(), evaluated(device="cpu", dtype="bfloat16", workers=0)
    assert plain["summary"].endswith("on cpu in float32") and plain["dtype"] == "float32"
    assert mixed["summary"].endswith("on cpu in bfloat16") and mixed["device"] == "cpu"


@pytest.mark.parametrize("command", ["calibrate", "prune", "predict", "finetune", "evaluate"])
def test_a_wrong_device_is_refused_before_anything_is_loaded(command, tmp_path):
    options = {"device": "gpu", "model": "no model", "heavy": "no model", "dtype": "float32"}
    options["output"] = str(tmp_path / "made")
    with pytest.raises(DeviceError, match="compute on device 'gpu'"):
        getattr(commands, command)(json.dumps(options))


@pytest.mark.parametrize("recipe", ["run", "design"])
def test_a_recipe_refuses_a_wrong_device(recipe, tmp_path):
    options = {"device": "gpu", "output": str(tmp_path / "made"), "model": "no model"}
    with pytest.raises(DeviceError, match="compute on device 'gpu'"):
        getattr(commands, recipe)(json.dumps(options))


def test_bfloat16_through_the_commands(tmp_path):
    """Statistics and predictions in bfloat16 are near those in float32, and not the same."""
    common = {**EVALUATE, "weights": None, "limit": 64, "batch_size": 32}
    found = {}
    for dtype in ("float32", "bfloat16"):
        output = str(tmp_path / f"{dtype}.arrow")
        calibrating = {"groups": ["mlp"], "batches": 2, "weight_gradients": False}
        calibrating |= {"nonfinite": "refuse", "loss": "labels", "output": output, "dtype": dtype}
        commands.calibrate(json.dumps({**common, "data": "example:train", **calibrating}))
        found[dtype] = agflow.score(agflow.Statistics.load(output)).to_pandas().score
    assert found["float32"].corr(found["bfloat16"]) > 0.99
    assert not found["float32"].equals(found["bfloat16"])


def test_class_folders_through_the_command(tmp_path):
    for name in ("shirt", "bag"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.png").write_bytes(picture(99, mode="L"))
    spec = {"data": f"imagefolder:{tmp_path / 'photos'}"}
    with pytest.raises(InvalidValueError, match="--class-map"):
        evaluated(**spec)
    (tmp_path / "map.csv").write_text("shirt,6\nbag,8\n")
    assert evaluated(**spec, class_map=str(tmp_path / "map.csv"))["images"] == 2


def test_a_table_of_the_default_name_says_which_run_it_is_of(tmp_path):
    options = {
        "model": "example",
        "data": "example:train",
        "limit": 8,
        "batch_size": 8,
        "batches": 1,
        "groups": ["mlp"],
        "weight_gradients": False,
        "nonfinite": "refuse",
        "loss": "labels",
        "seed": 0,
    }
    for name, run in (("statistics.arrow", "5ca1e"), ("named.arrow", None)):
        output = str(tmp_path / name)
        commands.calibrate(json.dumps({**options, "output": output, "run": run}))
        assert agflow.Statistics.load(output).metadata.get("agflow.run") == run
