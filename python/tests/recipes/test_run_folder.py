"""A run folder belongs to one process and to one run."""

import json
import multiprocessing
import os
import signal

import pytest

from agflow._utils.json_file import read_json
from agflow.errors import FileError
from agflow.recipes.results import RunOptions
from agflow.recipes.run_folder import OUTPUTS, RUN_FOLDER, locked_folder, run_folder

INPUTS = {"model": "12ab", "images": {"test": 4}}


def options_of(path, **others):
    return RunOptions(output=str(path), **others)


def finished(path, content, **options):
    """A finished run, whose files all have this content."""
    with run_folder(path) as output:
        run = output.begin(options_of(path, **options), INPUTS)
        (path / "light").mkdir()
        for name in OUTPUTS:
            (path / name).write_text(content)
        output.seal()
    return run


def test_a_second_run_removes_the_first_ones_files_when_it_begins(tmp_path):
    path = tmp_path / "deep" / "out"
    first = finished(path, "first", seed=1)
    with run_folder(path) as output:
        assert (path / "report.json").read_text() == "first"
        second = output.begin(options_of(path, seed=2), INPUTS)
        assert os.listdir(path) == ["run.json"] and first != second
        (path / "statistics.arrow").write_text("second")
    # It ended early, by an error or a kill; the next one knows its files.
    assert finished(path, "third", seed=1) == first
    assert {file.read_text() for file in path.rglob("*.arrow")} == {"third"}


def test_the_id_is_that_of_options_and_inputs_wherever_the_output_lies(tmp_path):
    ids = {finished(tmp_path / name, "x") for name in "ab"}
    assert len(ids) == 1
    content = read_json(tmp_path / "a" / "run.json", "run file", RUN_FOLDER.keys)
    assert content["run"] in ids and content["options"]["seed"] == 0
    assert set(content["sha256"]) == set(OUTPUTS)


def hold(path, ready, go_on):
    with run_folder(path):
        ready.set()
        go_on.wait(60)


def test_two_runs_at_once_are_refused_until_the_owner_is_dead(tmp_path):
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    other = fork.Process(target=hold, args=(tmp_path, ready, fork.Event()))
    other.start()
    assert ready.wait(60)
    for refused in (run_folder, lambda path: locked_folder(path, "run folder")):
        with pytest.raises(FileError, match="another run is writing to .*: wait for its end"):
            with refused(tmp_path):
                pass
    assert other.pid is not None
    os.kill(other.pid, signal.SIGKILL)
    other.join()
    with run_folder(tmp_path):
        pass


@pytest.mark.parametrize(
    "name", ["notes.txt", "report.json", "light/notes.txt", "statistics.arrow"]
)
def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path, name):
    for path, prepare in (
        (tmp_path / "foreign", lambda path: (path / "light").mkdir(parents=True)),
        (tmp_path / "run", lambda path: finished(path, "x")),
    ):
        prepare(path)
        (path / name).write_text("mine")
        before = {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        with pytest.raises(FileError, match="so it is not replaced; choose an empty --output"):
            with run_folder(path):
                pass
        assert {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_an_edited_run_json_or_one_of_another_recipe_is_refused(tmp_path):
    finished(tmp_path, "x")
    content = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps({**content, "run": "0"}))
    with pytest.raises(FileError, match="exists and is not a run folder"):
        with run_folder(tmp_path):
            pass


def test_what_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "file/out"):
        with pytest.raises(FileError, match=f"run folder .*{name} cannot be written"):
            with run_folder(tmp_path / name):
                pass
