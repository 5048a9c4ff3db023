"""A run or a design that was interrupted goes on, and one that is finished computes nothing."""

import os

import pytest

import agflow
from agflow.errors import FileError
from agflow.recipes import DesignOptions, RunOptions, design, run
from agflow.recipes.run_identity import RunIdentity

RUN = {"macs": "0.5", "epochs": 1, "batches": 1, "limit": 64, "eval_limit": 32}
DESIGN = {"limit": 128, "image_sizes": (16,), "macs": (1.0, 0.5), "epochs": 2}


class Interrupted(Exception):
    pass


def until(words, said):
    """A ``say`` that ends the work at a line."""

    def say(line):
        said.append(line)
        if words and words in line:
            raise Interrupted

    return say


def times_in(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("make", ["run", "design"])
def test_an_interrupted_one_goes_on_and_a_finished_one_computes_nothing(make, tmp_path):
    out = tmp_path / "out"
    ask, last = {
        "run": (lambda say, **o: run(RunOptions(output=str(out), **RUN, **o), say), "6/8"),
        "design": (lambda say, **o: design(DesignOptions(str(out), **DESIGN, **o), say), "3/3"),
    }[make]
    first, second, third = [], [], []
    with pytest.raises(Interrupted):
        ask(until(last, first))
    found = ask(until("", second))
    done = [line for line in second if line.endswith(": done before")]
    assert len(done) == len([line for line in first if "/" in line[:4] and last not in line])
    assert os.listdir(tmp_path) == ["out"] and agflow.load(out).router
    before = times_in(out)
    again = ask(until("", third))
    assert "already" in third[0] and "--force" in third[0] and len(third) == 1
    assert again.summary == found.summary and times_in(out) == before
    with pytest.raises(Interrupted):
        ask(until("1/", third), force=True)
    assert not third[-1].endswith("done before")
    if make == "design":  # the finished cascade stays until the new one is there
        assert agflow.load(out) and not (tmp_path / "out.partial").exists()


def test_the_default_folder_keeps_another_run_without_force(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Interrupted):
        run(RunOptions(**RUN), until("2/8", []))
    before = times_in(tmp_path)
    with pytest.raises(FileError, match=r"another run \(seed: 0 then, 1 now\): --force replaces"):
        run(RunOptions(**RUN, seed=1))
    assert times_in(tmp_path) == before
    with pytest.raises(Interrupted):
        run(RunOptions(**RUN, seed=1, force=True), until("1/8", []))
    assert not list(tmp_path.rglob("*.arrow"))


def test_what_names_a_run(example):
    model, preprocessing = example
    data = {
        "eval": agflow.load_dataset("example:test", preprocessing=preprocessing, limit=10),
    }
    options = RunOptions(output="a", **RUN)
    one = RunIdentity.of("run", options, model, preprocessing, data)
    other = RunOptions(output="b", workers=2, force=True, **RUN)
    assert RunIdentity.of("run", other, model, preprocessing, data).run == one.run
    data["eval"] = agflow.load_dataset("example:test", preprocessing=preprocessing, limit=11)
    changed = RunIdentity.of("run", options, model, preprocessing, data)
    content = {"recipe": one.recipe, "options": one.options, "inputs": one.inputs}
    assert changed.run != one.run and changed.difference(content).startswith("data eval: ")
