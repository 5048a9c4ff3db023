"""Folders that replace their older selves in one step, and nothing else."""

import errno
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from agflow._utils import folders
from agflow._utils.folders import FolderKind, atomic_folder, check_folder
from agflow._utils.json_file import Keys
from agflow.errors import FileError

KIND = FolderKind(
    "a box", "box.json", {4: Keys(("name", "sha256")), 1: Keys(("name",))}, earlier=("old.txt",)
)


def make(folder, text="new"):
    with atomic_folder(folder, KIND) as made:
        (made / "in").mkdir()
        (made / "in" / "text").write_text(text)
        KIND.seal(made, {"name": "box"})


def text_of(folder):
    return (folder / "in" / "text").read_text()


def everything(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_an_older_folder_is_replaced_and_nothing_is_left(tmp_path):
    (tmp_path / "box").mkdir()  # empty
    for text in ("one", "two"):
        make(tmp_path / "box", text)
        assert text_of(tmp_path / "box") == text and os.listdir(tmp_path) == ["box"]


def foreign_marker(folder):
    folder.mkdir()
    (folder / "box.json").write_text(json.dumps({"architectures": ["ViT"], "name": "box"}))


def foreign_file_beside(folder):
    make(folder)
    (folder / "notes.txt").write_text("mine")


def foreign_file_below(folder):
    make(folder)
    (folder / "in" / "notes.txt").write_text("mine")


def foreign_empty_folder(folder):
    make(folder)
    (folder / "photos").mkdir()


def edited(folder):
    make(folder)
    (folder / "in" / "text").write_text("my notes")


def link_inside(folder):
    make(folder)
    (folder / "in" / "text").unlink()
    (folder / "in" / "text").symlink_to("/dev/null")


def pipe_inside(folder):
    make(folder)
    (folder / "in" / "text").unlink()
    os.mkfifo(folder / "in" / "text")


def edited_marker(folder):
    make(folder)
    content = json.loads((folder / "box.json").read_text())
    (folder / "box.json").write_text(json.dumps({**content, "name": "my box"}))


def earlier_with_notes(folder):
    folder.mkdir()
    (folder / "box.json").write_text('{"format": 1, "name": "box"}')
    (folder / "old.txt").write_text("old")
    (folder / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (foreign_marker, "exists and is not a box"),
        (foreign_file_beside, "holds notes.txt, which agflow did not put there"),
        (foreign_file_below, "holds in/notes.txt, which agflow did not put there"),
        (foreign_empty_folder, "holds photos/, which agflow did not put there"),
        (edited, "holds in/text, which is not as agflow wrote it"),
        (link_inside, "holds /in/text, which agflow did not put there"),
        (pipe_inside, "holds /in/text, which agflow did not put there"),
        (edited_marker, "exists and is not a box"),
        (earlier_with_notes, "holds notes.txt, which agflow did not put there"),
        (lambda folder: folder.write_text("mine"), "exists and is not a box"),
        (lambda folder: os.mkfifo(folder), "exists and is not a box"),
    ],
)
def test_nothing_of_the_users_is_replaced(tmp_path, prepare, message):
    prepare(tmp_path / "box")
    before = everything(tmp_path)
    for attempt in (make, lambda folder: check_folder(folder, KIND)):
        with pytest.raises(FileError, match=f"box {message}, so it is not replaced; choose"):
            attempt(tmp_path / "box")
    assert everything(tmp_path) == before


def test_a_folder_of_an_earlier_format_is_replaced(tmp_path):
    earlier_with_notes(tmp_path / "box")
    (tmp_path / "box" / "notes.txt").unlink()
    make(tmp_path / "box")
    assert text_of(tmp_path / "box") == "new"


def test_the_current_folder_those_above_it_and_mount_points_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".", "..", "/", "", tmp_path):
        with pytest.raises(FileError, match="is the current folder or one above it"):
            make(name)
    with pytest.raises(FileError, match="/proc is a mount point"):
        make("/proc")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="a box .*file/box cannot be written: Not a directory"):
        make(tmp_path / "file" / "box")
    assert os.listdir(tmp_path) == ["file"]


def test_links_are_followed(tmp_path):
    make(tmp_path / "v1", "old")
    for target in ("v1", "v2"):  # there, and not yet there
        (tmp_path / "latest").symlink_to(target)
        make(tmp_path / "latest")
        assert (tmp_path / "latest").is_symlink() and text_of(tmp_path / target) == "new"
        (tmp_path / "latest").unlink()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FileError, match="loop cannot be written: Too many levels"):
        make(tmp_path / "loop")


def test_what_a_killed_process_left_inside_does_not_make_a_folder_foreign(tmp_path):
    make(tmp_path / "box")
    (tmp_path / "box" / f".agflow-{16 * '0'}").mkdir()
    (tmp_path / "box" / f".agflow-{16 * '1'}").write_text("half a table of the core")
    make(tmp_path / "box")
    assert sorted(everything(tmp_path / "box")) == ["box.json", "in", "in/text"]


def without_exchange(monkeypatch):
    monkeypatch.setattr(folders, "_exchange", lambda one, other: False)


def test_without_an_exchange_an_interrupt_between_the_renames_puts_back(tmp_path, monkeypatch):
    without_exchange(monkeypatch)
    make(tmp_path / "box", "old")
    rename = pathlib.Path.rename

    def interrupted(self, target):
        if self.parent.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(pathlib.Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "box")
    assert text_of(tmp_path / "box") == "old" and os.listdir(tmp_path) == ["box"]


KILLED = """
import os, pathlib, signal, sys
sys.path.insert(0, sys.argv[2])
from agflow._utils import folders
from test_folders import make
folders._exchange = lambda one, other: False
rename = pathlib.Path.rename
def killed(self, target):
    if self.parent.name == "new":
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
pathlib.Path.rename = killed
make(pathlib.Path(sys.argv[1]))
"""


def test_without_an_exchange_the_next_writer_recovers_what_a_killed_one_left(tmp_path):
    make(tmp_path / "box", "old")
    here = pathlib.Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "box", here], timeout=60)
    assert done.returncode == -signal.SIGKILL and not (tmp_path / "box").exists()
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "other", KIND):
        raise ZeroDivisionError
    assert text_of(tmp_path / "box") == "old" and os.listdir(tmp_path) == ["box"]


def test_a_system_without_the_call_is_told_from_an_error(tmp_path, monkeypatch):
    make(tmp_path / "one", "one")
    make(tmp_path / "two", "two")
    assert folders._exchange(tmp_path / "one", tmp_path / "two")
    assert text_of(tmp_path / "one") == "two"
    with pytest.raises(OSError) as raised:
        folders._exchange(tmp_path / "one", tmp_path / "missing")
    assert raised.value.errno == errno.ENOENT
    monkeypatch.setattr(folders, "_NOT_SUPPORTED", (errno.ENOENT,))
    assert not folders._exchange(tmp_path / "one", tmp_path / "missing")
