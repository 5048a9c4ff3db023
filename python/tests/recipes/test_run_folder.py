"""A run folder belongs to one process and to one run, whose steps are done once."""

import multiprocessing
import os
import signal

import pytest

from agflow._utils.json_file import read_json, write_json
from agflow.errors import FileError
from agflow.recipes.run_folder import OUTPUTS, RUN_FOLDER, locked_folder, run_folder
from agflow.recipes.run_identity import RunIdentity

FILES = ("statistics.arrow", "plan.arrow", "report.json")


def identity(seed=0):
    return RunIdentity("run", {"seed": seed, "groups": ["mlp"]}, {"data": {"eval": "12ab"}})


def do(path, content="x", *, seed=0, force=False, replace=True, until=len(FILES)):
    """A run of three steps, of which the first ``until`` are done, and what it said and made."""
    said, made = [], []

    def make(name):
        made.append(name)
        (path / name).write_text(content)

    with run_folder(path, said.append) as folder:
        if not folder.begin(identity(seed), force=force, replace=replace):
            for name in FILES[:until]:
                folder.step(name, name, [name], lambda _, name=name: make(name))
            if until == len(FILES):
                folder.seal()
    return made, said


def test_a_second_run_removes_the_first_ones_files_when_it_begins(tmp_path):
    path = tmp_path / "deep" / "out"
    do(path, "first", seed=1)
    with run_folder(path) as folder:
        first = folder.run
        assert (path / "report.json").read_text() == "first"
        assert not folder.begin(identity(2), force=False, replace=True)
        assert os.listdir(path) == ["run.json"] and folder.run != first
    assert do(path, "third", seed=1)[0] == [*FILES]
    assert {(path / name).read_text() for name in FILES} == {"third"}


def test_a_run_in_a_folder_that_is_not_to_be_replaced_is_refused_with_what_differs(tmp_path):
    do(tmp_path, seed=1, until=1)
    with pytest.raises(FileError, match=r"another run \(seed: 1 then, 2 now\): --force replaces"):
        do(tmp_path, seed=2, replace=False)
    assert (tmp_path / "statistics.arrow").exists()


def test_the_same_run_leaves_out_the_steps_that_are_done(tmp_path):
    assert do(tmp_path, until=2)[0] == ["statistics.arrow", "plan.arrow"]
    made, said = do(tmp_path, replace=False)
    assert made == ["report.json"]
    assert said == ["statistics.arrow: done before", "plan.arrow: done before", "report.json"]
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in os.listdir(tmp_path)}
    assert do(tmp_path) == ([], [])  # it is whole
    assert before == {name: (tmp_path / name).stat().st_mtime_ns for name in os.listdir(tmp_path)}
    assert do(tmp_path, force=True)[0] == [*FILES]


def test_a_step_whose_file_is_edited_or_missing_is_repeated_and_said_so(tmp_path):
    do(tmp_path, until=2)
    (tmp_path / "statistics.arrow").write_text("edited")
    made, said = do(tmp_path)  # with the same bytes, so that the next step stands
    assert made == ["statistics.arrow", "report.json"]
    assert said[0] == "statistics.arrow: again, since statistics.arrow is not as it was written"
    (tmp_path / "statistics.arrow").unlink()
    made, said = do(tmp_path, "y")
    assert made == [*FILES]
    assert said[:2] == [
        "statistics.arrow: again, since statistics.arrow is missing",
        "plan.arrow: again, since a step before it gave other files",
    ]


def test_inner_steps_keep_their_files_as_long_as_the_outer_one_is_under_way(tmp_path):
    made = []

    def inner(own):
        made.append("inner")
        own.parent.mkdir(parents=True)
        (own.parent / "half").write_text("x")

    def outer(own, fails):
        folder.step("light/first", "", ["steps/light/half"], inner)
        assert own == tmp_path / "steps" / "light" and (own / "half").exists()
        if fails:
            raise KeyboardInterrupt
        (tmp_path / "plan.arrow").write_text("x")

    for fails in (True, False, False):
        with run_folder(tmp_path, made.append) as folder:
            folder.begin(identity(), force=False, replace=False)
            try:
                folder.step("light", "", ["plan.arrow"], lambda own, fails=fails: outer(own, fails))
            except KeyboardInterrupt:
                assert (tmp_path / "steps" / "light" / "half").exists()
    assert made == ["inner"] and not (tmp_path / "steps" / "light").exists()
    content = read_json(tmp_path / "run.json", "run file", RUN_FOLDER.keys)
    assert list(content["steps"]) == ["light"]


def test_the_id_is_that_of_options_and_inputs_wherever_the_output_lies(tmp_path):
    for name in "ab":
        do(tmp_path / name)
    one, other = (
        read_json(tmp_path / name / "run.json", "run file", RUN_FOLDER.keys) for name in "ab"
    )
    assert one == other and one["run"] == identity().run and one["options"]["seed"] == 0
    assert set(one["sha256"]) == set(FILES)
    data = RunIdentity("run", identity().options, {"data": {"eval": "34cd"}})
    assert data.run != one["run"]
    assert data.difference(one) == 'data eval: "12ab" then, "34cd" now'


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
        (tmp_path / "run", do),
    ):
        prepare(path)
        (path / "light").mkdir(exist_ok=True)
        (path / name).write_text("mine")
        before = {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()}
        with pytest.raises(FileError, match="so it is not replaced: move that away"):
            with run_folder(path):
                pass
        assert {str(p): p.read_bytes() for p in path.rglob("*") if p.is_file()} == before


def test_an_edited_run_json_or_one_of_another_recipe_is_refused(tmp_path):
    do(tmp_path)
    edited = (tmp_path / "run.json").read_text().replace('"seed": 0', '"seed": 1')
    (tmp_path / "run.json").write_text(edited)
    with pytest.raises(FileError, match="exists and is not a run folder"):
        do(tmp_path)
    write_json(tmp_path / "run.json", {"recipe": "prune_iteratively"}, "run file")
    with pytest.raises(FileError, match="exists and is not a run folder"):
        do(tmp_path)


def test_what_is_in_the_outputs_goes_with_the_run_that_broke(tmp_path):
    do(tmp_path, until=1)
    (tmp_path / "steps").mkdir()
    (tmp_path / "steps" / "half").write_text("x")
    do(tmp_path, seed=2, until=1)
    assert sorted(os.listdir(tmp_path)) == ["run.json", "statistics.arrow"]
    assert {name for name in OUTPUTS if name.endswith("/")} == {"light/", "heavy/", "steps/"}


def test_what_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "file/out"):
        with pytest.raises(FileError, match=f"run folder .*{name} cannot be written"):
            with run_folder(tmp_path / name):
                pass
