"""``agflow route`` and ``evaluate-router`` on answers in files that other programs wrote."""

import json
import os
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from pyarrow import parquet

import agflow
from agflow import _launcher

N, K = 1200, 4
CHOSEN = np.random.default_rng(0)
LABELS = CHOSEN.integers(0, K, N)
HEAVY = 6 * np.eye(K)[LABELS] + CHOSEN.normal(size=(N, K))
LIGHT = 3 * np.eye(K)[LABELS] + CHOSEN.normal(size=(N, K))
NAMES = np.array(["cat", "dog", "eel", "fox"])
COST = ("--cost", "0.25", "--tolerance", "0.02")
LAB = ("--light", "a.npy", "--heavy", "b.npy", "--labels", "y.npy")
needs_host = pytest.mark.skipif(
    not _launcher.libpython(), reason="this Python has no shared libpython: it cannot be hosted"
)


def command(*arguments, **environment):
    return subprocess.run(
        ["agflow", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **environment},
    )


def table():
    columns = {f"light_{name}": LIGHT[:, k] for k, name in enumerate(NAMES)}
    columns |= {f"heavy_{name}": HEAVY[:, k] for k, name in reversed([*enumerate(NAMES)])}
    return pl.DataFrame({"file": [f"{i}.png" for i in range(N)], **columns, "label": LABELS})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, values in {"a": LIGHT, "b": HEAVY, "y": LABELS}.items():
        np.save(f"{name}.npy", values)
    return tmp_path


@pytest.fixture(scope="module")
def expected():
    predictions = agflow.Predictions.of(LIGHT, HEAVY, LABELS, (0.25, 1.0))
    return agflow.calibrate_router(predictions, tolerance=0.02)


@needs_host
def test_npy_files_give_the_router_that_python_gives(folder, expected):
    done = command("route", *LAB, *COST, "--curve", "c.arrow", "--output", "r.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASS and a gain")
    expected.save("python.json")
    assert (folder / "r.json").read_bytes() == (folder / "python.json").read_bytes()
    predictions = agflow.Predictions.of(LIGHT, HEAVY, LABELS, (0.25, 1.0))
    assert agflow.cascade.Curve.load("c.arrow") == agflow.cascade.curve(predictions)
    found = command("--json", "evaluate-router", "--router", "r.json", *LAB)
    assert found.returncode == 0, found.stderr
    evaluation = agflow.evaluate_router(predictions, expected)
    assert json.loads(found.stdout)["point"]["accuracy"] == evaluation.cascade
    assert json.loads(found.stdout)["ledger"]["cost_unit"] == "x"


def answers(names=NAMES):
    return {"light": LIGHT, "heavy": HEAVY, "labels": names[LABELS]}


FORMS = {
    "parquet": lambda: (table().write_parquet("t.parquet"), ["--predictions", "t.parquet"]),
    "csv": lambda: (table().write_csv("t.csv"), ["--predictions", "t.csv"]),
    "feather": lambda: (
        table().write_ipc("t.feather", compression="lz4"),
        ["--predictions", "t.feather"],
    ),
    "stream": lambda: (table().write_ipc_stream("t.arrows"), ["--predictions", "t.arrows"]),
    "columns": lambda: (
        table().write_parquet("t.parquet"),
        ["--light", "t.parquet", "--heavy", "t.parquet:heavy_*", "--labels", "t.parquet:label"],
    ),
    "npz": lambda: (
        np.savez_compressed("t.npz", light=LIGHT, heavy=HEAVY, y=LABELS),
        ["--light", "t.npz", "--heavy", "t.npz:heavy", "--labels", "t.npz"],
    ),
    "names": lambda: (
        np.savez("t.npz", **answers()),
        ["--light", "t.npz", "--heavy", "t.npz", "--labels", "t.npz", "--classes", ",".join(NAMES)],
    ),
}


@needs_host
@pytest.mark.parametrize("form", ["parquet", "feather", "npz"])
def test_files_of_other_programs_give_the_same_router(form, folder, expected):
    check_form(form, expected)


@needs_host
@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_file_gives_the_same_router(form, folder, expected):
    check_form(form, expected)


def check_form(form, expected):
    _, arguments = FORMS[form]()
    done = command("route", *arguments, *COST)
    assert done.returncode == 0, done.stderr
    found = agflow.Router.load("router.json")
    assert found.verdict == "PASS" and found.threshold == pytest.approx(expected.threshold)


def test_predictions_of_polars_need_no_python(folder):
    frame = pl.DataFrame(
        {
            "label": LABELS,
            "light_prediction": LIGHT.argmax(1),
            "light_prior": LIGHT.max(1),
            "heavy_prediction": HEAVY.argmax(1).astype(np.uint8),
        }
    )
    frame.write_ipc("p.arrow")
    done = command("route", "--predictions", "p.arrow", *COST, PATH=os.environ["PATH"])
    assert done.returncode == 0 and "below" in done.stdout, done.stderr
    priors = {"light_prior": LIGHT.max(1)}
    of = agflow.Predictions.of(LIGHT.argmax(1), HEAVY.argmax(1), LABELS, (0.25, 1), priors=priors)
    assert agflow.Router.load("router.json") == agflow.calibrate_router(of, tolerance=0.02)
    for step in ("inspect", "verify"):
        described = command(step, "p.arrow")
        assert described.returncode == 0
        assert "no checksum" in described.stdout and "damaged" not in described.stdout
    done = command("route", "--predictions", "p.arrow")
    assert done.returncode == 2 and "nothing says what an image costs" in done.stderr


def test_logits_of_polars_are_decided(folder, expected):
    expected.save("r.json")
    pl.DataFrame(LIGHT, schema=[*NAMES]).write_ipc("light.arrow")
    agflow.cascade.Logits.of(LIGHT).save("own.arrow")
    for light in ("light.arrow", "own.arrow"):
        done = command("decide", "--router", "r.json", "--light", light, "--output", f"d-{light}")
        assert done.returncode == 0, done.stderr
    first, second = (agflow.cascade.Decisions.load(f"d-{name}.arrow") for name in ("light", "own"))
    assert first == second and len(first.escalated)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "--predictions is missing: give it, or --light, --heavy, --labels and --cost"),
        (["--light", "a.npy", "--heavy", "b.npy"], "--labels is missing, which --light needs"),
        ([*LAB, "--predictions", "p.arrow"], "--predictions and --light were given"),
        (["--heavy", "b.npy"], "--heavy was given without --light"),
        ([*LAB[:4], "--labels", "z.npy"], "z.npy"),
        ([*LAB, "--light-cost", "4"], "only one of --light-cost and --heavy-cost was given"),
        ([*LAB, "--cost", "0.2", "--cost-unit", "ms"], "--cost is a share"),
        ([*LAB, "--cost-unit", "ms"], "no cost was given"),
        ([*LAB, "--cost", "0"], "must be above 0 and finite"),
    ],
)
def test_what_the_command_line_tells_is_said_before_python_starts(folder, arguments, words):
    done = command("route", *arguments, AGFLOW_PYTHON="/nowhere/python")
    assert done.returncode in (1, 2) and words in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


@needs_host
@pytest.mark.parametrize(
    "arguments, status, words",
    [
        (LAB, 2, "nothing says what an image costs"),
        ((*LAB[:4], "--labels", "short.npy", "--cost", "0.25"), 3, "labels 7"),
        (
            ("--predictions", "t.parquet", "--cost", "0.25"),
            2,
            "has no column of the role",
        ),
    ],
)
def test_wrong_files_are_one_sentence(folder, arguments, status, words):
    np.save("short.npy", LABELS[:7])
    parquet.write_table(pa.table({"light_a": LIGHT[:, 0], "light_b": LIGHT[:, 1]}), "t.parquet")
    done = command("route", *arguments)
    assert done.returncode == status and words in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1


WITHOUT_TORCH = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "timm", "safetensors", "PIL", "matplotlib", "tqdm"):
            raise ImportError(f"{name} cannot be imported here")
sys.meta_path.insert(0, Refused())
"""


@needs_host
def test_the_lab_of_the_command_needs_no_torch(folder):
    (folder / "sitecustomize.py").write_text(WITHOUT_TORCH)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    done = command("route", *LAB, *COST, PYTHONPATH=os.pathsep.join(filter(None, paths)))
    assert done.returncode == 0, done.stderr
    refused = subprocess.run(
        [sys.executable, "-c", "import torch"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    assert "cannot be imported here" in refused.stderr
