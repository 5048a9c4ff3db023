"""Every error code of Go becomes its own Python exception, which is also the builtin that fits."""

import json
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from agflow import errors
from agflow._core import arrow
from agflow._core.loader import backend_name, core

BUILTINS = {
    "value": ValueError,
    "shape": ValueError,
    "dtype": TypeError,
    "device": TypeError,
    "nonfinite": ValueError,
    "empty": ValueError,
    "layer": KeyError,
    "budget": ValueError,
    "file": ValueError,
    "io": OSError,
    "closed": RuntimeError,
    "fork": RuntimeError,
    "internal": RuntimeError,
    "model": TypeError,
}


@pytest.mark.parametrize(("code", "builtin"), BUILTINS.items())
def test_code_becomes_exception(code, builtin):
    error = errors.from_text(f"agflow:{code}: layer 'a: b' is bad")
    assert isinstance(error, errors.AgflowError) and isinstance(error, builtin)
    assert error.code == code and str(error) == "layer 'a: b' is bad"


@pytest.mark.parametrize(
    "text", ["", "boom", "agflow:unknown: x", "agflow:shape", "other:shape: x"]
)
def test_any_other_text_is_internal(text):
    error = errors.from_text(text)
    assert type(error) is errors.InternalError and str(error) == text


def test_every_code_of_go_is_known():
    source = pathlib.Path(__file__).parents[3] / "core" / "fault" / "fault.go"
    if not source.exists():
        pytest.skip("the Go sources are not here")
    codes = re.findall(r'^\t\w+ +Code = "(\w+)"', source.read_text(), re.M)
    assert len(codes) >= 11 and all(
        errors.from_text(f"agflow:{code}: x").code == code for code in codes
    )


def add(session, y, g, layer=0, samples=1):
    arrow.call(core().statistics_add, session, layer, samples, arrow.matrix(y), arrow.matrix(g))


def ones(rows, channels):
    return np.ones((rows, channels), np.float32)


def add_nan(session):
    bad = ones(3, 6)
    bad[1, 2] = np.nan
    add(session, bad, ones(3, 6))


def score_nothing(session):
    arrow.call_for_batch(
        core().score, "agf", 0, arrow.call_for_batch(core().statistics_table, session)
    )


def plan_the_impossible(session):
    for layer, channels in enumerate((6, 8)):
        add(session, ones(3, channels), ones(3, channels), layer)
    scores = arrow.call_for_batch(
        core().score, "agf", 0, arrow.call_for_batch(core().statistics_table, session)
    )
    arrow.call_for_report(core().plan, json.dumps({"macs": "0.0001"}), scores, 0, 0)


@pytest.mark.parametrize(
    ("code", "provoke"),
    {
        "shape": lambda session: add(session, ones(3, 5), ones(3, 5)),
        "layer": lambda session: add(session, ones(3, 6), ones(3, 6), layer=7),
        "value": lambda _: core().statistics_open("{"),
        "dtype": lambda session: arrow.call(
            core().statistics_add, session, 0, 1, pa.array([1.0]), pa.array([1.0])
        ),
        "nonfinite": add_nan,
        "empty": score_nothing,
        "budget": plan_the_impossible,
        "file": lambda _: arrow.call_for_batch(core().read_file, __file__, "plan"),
        "io": lambda _: arrow.call_for_batch(core().read_file, "/none/plan.arrow", "plan"),
        "closed": lambda _: core().statistics_close(0),
    }.items(),
)
def test_errors_of_go(code, provoke, session):
    with pytest.raises(BUILTINS[code]) as caught:
        provoke(session)
    assert caught.value.code == code
    assert "agflow:" not in str(caught.value) and len(str(caught.value)) > 20


def test_a_refused_batch_leaves_the_sums(session, pairs):
    y, g = pairs[0]
    add(session, y, g, samples=2)
    before = arrow.call_for_batch(core().statistics_table, session)
    with pytest.raises(errors.NonFiniteError, match="blocks.0.mlp"):
        add_nan(session)
    assert arrow.call_for_batch(core().statistics_table, session).equals(
        before, check_metadata=True
    )


def test_errors_survive_pickling():
    for kind in errors.AgflowError.__subclasses__():
        again = pickle.loads(pickle.dumps(kind("what, why, cure")))
        assert type(again) is kind and str(again) == "what, why, cure"


def test_a_missing_native_part_says_the_cure(tmp_path):
    """A copy of the Python sources alone: the import works, the first call says what to do."""
    if backend_name() == "host":
        pytest.skip("a Go process hosts this Python")
    package = pathlib.Path(arrow.__file__).parents[1]
    shutil.copytree(
        package,
        tmp_path / "agflow",
        ignore=shutil.ignore_patterns("*.so", "_bin", "__pycache__", "example"),
    )
    code = "import agflow._core.loader as l\ntry: l.core()\nexcept ImportError as e: print(e)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        timeout=120,
    )
    assert "make native" in done.stdout, done.stderr
