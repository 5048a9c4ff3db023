"""The benchmarks run, name every contender, and find what they compare equal where it must be."""

import json
import subprocess
import sys

import pytest
import torch

from agflow.bench import calibration, core, passes
from agflow.errors import InvalidValueError
from agflow.evaluation.timing import interleaved

pytestmark = pytest.mark.bench


@pytest.fixture(scope="module")
def figures():
    """Every figure of ``agflow bench core``, on tensors that take no time."""
    return core.measure(
        shapes=((64, 24),),
        maps=((2, 24, 5, 3),),
        dtypes=(torch.float32, torch.float16),
        threads=(1, 2),
        rounds=1,
        scores=20_000,
    )


def test_agflow_is_exact_and_the_others_are_there(figures):
    agf = [entry for entry in figures["passes"] if entry["pass"] == "agf"]
    assert [(entry["dtype"], entry["threads"]) for entry in agf] == [
        ("float32", 1),
        ("float32", 2),
        ("float16", 1),
        ("float16", 2),
    ]
    for entry in agf:
        contenders = {one["name"]: one for one in entry["contenders"]}
        assert contenders["agflow"]["relative_error"] == 0
        assert {"torch eager", "torch.compile", "read limit"} <= contenders.keys()
        assert contenders["torch.compile, float64 sums"]["relative_error"] < 1e-14
    assert {"numpy", "numpy, buffer reused"} <= {one["name"] for one in agf[0]["contenders"]}


def test_maps_are_exact_in_both_layouts_beside_their_peers(figures):
    found = [(entry["shape"], entry["layout"], entry["threads"]) for entry in figures["maps"]]
    shape, layouts = [2, 24, 5, 3], ("channels_last", "contiguous")
    assert found == [(shape, layout, threads) for layout in layouts for threads in (1, 2)]
    for entry in figures["maps"]:
        contenders = {one["name"]: one for one in entry["contenders"]}
        assert contenders["agflow"]["relative_error"] == 0
        assert {"torch eager", "torch.compile", "read limit"} <= contenders.keys()
    assert "agf of maps, float32, [2, 24, 5, 3], contiguous, 2 thread(s)" in core.text(figures)


def test_the_figures_are_json_and_read_by_people(figures):
    assert json.loads(json.dumps(figures)) == figures
    text = core.text(figures)
    assert (
        "all sums, float16, 64 x 24, 2 thread(s)" in text
        and "one call across the bridge" in text
        and "top 5000 of 20000" in text
    )


@pytest.mark.parametrize("dtype", core.DTYPES)
def test_all_sums_of_the_peers_are_agflows(dtype):
    """What is timed against agflow computes the same eight sums, in the same order."""
    y_RC, g_RC = core._tensors((50, 8), dtype, 3)
    with passes.all_sums(y_RC, g_RC, 1) as contenders:
        found = torch.stack(
            [column.double() for column in contenders["torch.compile, float64 sums"]()]
        )
    from agflow.calibration.cuda import device_sums

    torch.testing.assert_close(found, device_sums(y_RC, g_RC), rtol=1e-12, atol=0)


def test_contenders_take_turns():
    calls = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3)
    order = "".join(calls)
    assert order.startswith("aabb") and order.index("b", 4) < order.rindex("a")
    assert len(times["a"].seconds) == 3 and times["a"].over(times["a"]) == (1, 1, 1)


def test_calibration_is_measured_beside_the_bare_step():
    found = calibration.measure(model="vit_tiny_patch16_224", batch_size=4, batches=1, rounds=1)
    assert [one["name"] for one in found["step"]] == [
        calibration.BARE,
        calibration.FROZEN,
        calibration.OURS,
    ]
    assert all(peak > 0 for peak in found["peak_memory"].values())
    assert "peak memory of a step" in calibration.text(found)


def test_refusals():
    for arguments in ({"rounds": 0}, {"threads": (0,)}):
        with pytest.raises(InvalidValueError, match="expected whole numbers from 1"):
            core.measure(**arguments)
    with pytest.raises(InvalidValueError, match="no model 'vit_unknown'"):
        calibration.measure(model="vit_unknown")


def test_the_command_prints_one_json_object():
    """The whole way through the hosted Python, on the smallest figures that the command takes."""
    command = [
        sys.executable,
        "-m",
        "agflow",
        "bench",
        "calibration",
        "--model",
        "vit_tiny_patch16_224",
        "--batch-size",
        "1",
        "--batches",
        "1",
        "--rounds",
        "1",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["machine"]["backend"] == "host"
