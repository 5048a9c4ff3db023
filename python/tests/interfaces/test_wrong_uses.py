"""Wrong uses of the command and of Python: one sentence with its cure, at once, nothing written.

``pytest -s`` prints what is said and how long it took.
"""

import os
import pathlib
import shutil
import subprocess
import time

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import agflow
from agflow import errors

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "inputs"
BUILT = pathlib.Path(agflow.__file__).parent / "_bin" / "agflow"
# An installed one is on the PATH; in a checkout that is a Python, which would be timed, too.
COMMAND = BUILT if BUILT.exists() else shutil.which("agflow")
USAGE, FAILED, BAD_DATA = 2, 1, 3


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of files that are not what a command expects, and some that are."""
    monkeypatch.chdir(tmp_path)
    for name in ("statistics", "predictions"):
        (tmp_path / f"{name}.arrow").write_bytes((GOLDENS / f"{name}.arrow").read_bytes())
    table = pa.table({"layer": ["a"], "score": [0.5]})
    with pa.OSFile("foreign.arrow", "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write(table)
    np.save("numbers.npy", np.zeros(3))
    (tmp_path / "text.txt").write_text("no data")
    (tmp_path / "pictures").mkdir()
    return tmp_path


def run(*arguments):
    """Run the command where there is no Python to start; return status, sentence and seconds."""
    begin = time.perf_counter()
    done = subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "AGFLOW_PYTHON": "/nowhere/python3"},
    )
    took = time.perf_counter() - begin
    print(f"\nagflow {' '.join(arguments)}\n    {took:.2f} s, {done.stderr.strip()}")
    return done.returncode, done.stderr


COMMANDS = {
    "calibrat": (USAGE, "did you mean calibrate?"),
    "calibrate --batchs 3": (USAGE, "did you mean --batches?"),
    "calibrate --batches 0": (USAGE, "at least 1"),
    "calibrate --batches many": (USAGE, "whole number"),
    "calibrate --groups mpl": (USAGE, "did you mean mlp?"),
    "calibrate --model exmaple": (USAGE, "did you mean example?"),
    "calibrate --model deit_tiny_patch16_224": (USAGE, "timm:deit_tiny_patch16_224"),
    "calibrate --model pictures": (USAGE, "no config.json"),
    "calibrate --model text.txt": (USAGE, "--weights"),
    "calibrate --data pictures": (USAGE, "write imagefolder:pictures"),
    "calibrate --data imagefoldr:pictures": (USAGE, "did you mean imagefolder:pictures?"),
    "calibrate --data npz:number.npy": (FAILED, "did you mean numbers.npy?"),
    "calibrate --data parquet:pictures": (USAGE, "no .parquet file"),
    "calibrate --data parquet:shards/*.parquet": (FAILED, "the folder shards is not there"),
    "calibrate --weights deit.safetensors --model timm:deit_tiny_patch16_224": (
        FAILED,
        "no such file",
    ),
    "calibrate --output text.txt/statistics.arrow": (FAILED, "text.txt is a file"),
    "calibrate --dtype fp16": (USAGE, "float32, bfloat16"),
    "calibrate --device gpu!": (USAGE, "cuda:1"),
    "calibrate --mean 0.5 0.5 0.5": (USAGE, "with commas"),
    "calibrate --mean 0.5,0.5,0.5": (USAGE, "--std"),
    "calibrate": (FAILED, "--force"),
    "run --macs 1.5": (USAGE, "up to 1"),
    "run --macs half": (USAGE, "such as 0.5"),
    "run --macs 0.5 --pruning-ratio 0.3": (USAGE, "give one budget"),
    "run --round-to 0": (USAGE, "at least 1"),
    "run --criterion tailor": (USAGE, "did you mean taylor?"),
    "run --compensate rigde": (USAGE, "did you mean ridge?"),
    "prune --output light": (USAGE, "--plan is missing"),
    "prune --output light --plan plan.arrow": (FAILED, "no such file"),
    "prune --output light --plan statistics.arrow": (BAD_DATA, "expected plan"),
    "finetune --light pictures --output pictures": (USAGE, "agflow prune"),
    "export --output model.onx": (USAGE, ".onnx"),
    "evaluate --limit": (USAGE, "needs a value"),
    "score --statistics foreign.arrow": (USAGE, "lacks the metadata"),
    "score --statistics statistics.arrow --criterion agff": (USAGE, "did you mean agf?"),
    "score --statistics statistics.arrow --output statistics.arrow": (USAGE, "another --output"),
    "plan --statistics statistics.arrow": (USAGE, "--macs"),
    "plan --statistics statistics.arrow --macs 50G": (BAD_DATA, "dense model"),
    "inspect numbers.npy": (BAD_DATA, "is a numpy file, expected an Arrow file"),
    "help plam": (USAGE, "did you mean plan?"),
}


@pytest.mark.parametrize("line", COMMANDS)
def test_the_command_says_what_is_wrong_before_python_starts(folder, line):
    before = sorted(folder.rglob("*"))
    status, said = run(*line.split())
    expected, cure = COMMANDS[line]
    assert (status, said.count("\n")) == (expected, 1), said
    assert said.startswith("agflow: ") and cure in said and "Traceback" not in said, said
    assert sorted(folder.rglob("*")) == before


def statistics():
    return agflow.Statistics.load(GOLDENS / "statistics.arrow")


def scores():
    return agflow.score(statistics())


def batches(images, labels):
    return DataLoader(TensorDataset(images, labels), 4)


def example():
    return agflow.load_model("example")[0]


PYTHON = {
    "a misspelled criterion": (
        lambda: agflow.score(statistics(), "agff"),
        errors.InvalidValueError,
        "agf",
    ),
    "a budget beyond the model": (
        lambda: agflow.plan(statistics(), macs="50G"),
        errors.BudgetError,
        "dense model",
    ),
    "two budgets": (
        lambda: agflow.plan(statistics(), macs=0.5, pruning_ratio=0.5),
        errors.InvalidValueError,
        "one",
    ),
    "a polars frame without its metadata": (
        lambda: agflow.Scores(pl.DataFrame(scores())),
        errors.InvalidValueError,
        "metadata",
    ),
    "a pandas frame of something else": (
        lambda: agflow.Statistics(pd.DataFrame({"a": [1]})),
        errors.AgflowError,
        "lacks the metadata",
    ),
    "a numpy array in place of a table": (
        lambda: agflow.plan(np.zeros(3), macs=0.5),
        errors.AgflowError,
        "ndarray",
    ),
    "a foreign Arrow file": (
        lambda: agflow.Statistics.load("foreign.arrow"),
        errors.InvalidValueError,
        "lacks the metadata",
    ),
    "a file that is not there": (
        lambda: agflow.load("lihgt"),
        errors.FileError,
        "lihgt",
    ),
    "labels that the model does not have": (
        lambda: agflow.calibrate(
            example(), batches(torch.rand(4, 1, 28, 28), torch.full((4,), 10)), batches=1
        ),
        errors.AgflowError,
        "label",
    ),
    "images of another size": (
        lambda: agflow.calibrate(
            example(), batches(torch.rand(4, 3, 32, 32), torch.arange(4)), batches=1
        ),
        errors.AgflowError,
        "28",
    ),
    "names of files in place of images": (
        lambda: agflow.calibrate(example(), [(["cat.png"], [3])], batches=1),
        errors.AgflowError,
        "expected",
    ),
    "a model that is none": (
        lambda: agflow.calibrate(nn.Linear(3, 3), []),
        errors.UnsupportedModelError,
        "Linear",
    ),
    "a misspelled group": (
        lambda: agflow.calibrate(
            example(), batches(torch.rand(4, 1, 28, 28), torch.arange(4)), groups=["head"]
        ),
        errors.InvalidValueError,
        "did you mean heads?",
    ),
    "a misspelled compensation": (
        lambda: agflow.prune(example(), agflow.plan(statistics(), macs=0.5), compensate="rigde"),
        errors.AgflowError,
        "did you mean ridge?",
    ),
    "a misspelled data set": (
        lambda: agflow.load_dataset(
            "imagefoldr:pictures", preprocessing=agflow.load_model("example")[1]
        ),
        errors.InvalidValueError,
        "did you mean imagefolder:pictures?",
    ),
    "a folder of another kind": (
        lambda: agflow.load("pictures"),
        errors.AgflowError,
        "pictures",
    ),
}


@pytest.mark.parametrize("use", PYTHON)
def test_python_says_what_is_wrong(folder, use):
    call, error, cure = PYTHON[use]
    begin = time.perf_counter()
    with pytest.raises(error) as caught:
        call()
    said = str(caught.value).strip("'\"")
    print(
        f"\n{use}\n    {time.perf_counter() - begin:.2f} s, {type(caught.value).__name__}: {said}"
    )
    assert cure in said and "\n" not in said, said
