"""Files that appear whole or not at all, and hooks that are removed again."""

import os

import pytest

from agflow._utils.files import atomic_file
from agflow.errors import FileError


def test_a_file_gets_its_name_at_the_end(tmp_path):
    path = tmp_path / "deep" / "report.json"
    with atomic_file(path, "report") as unfinished:
        unfinished.write_text("new")
        assert unfinished.suffix == ".json" and not path.exists()
    assert path.read_text() == "new" and os.listdir(path.parent) == ["report.json"]


def test_after_an_error_the_older_file_is_still_there(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(path, "report") as unfinished:
        unfinished.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.json"]


def test_what_a_killed_process_left_is_overwritten(tmp_path):
    path = tmp_path / "checkpoint"
    (tmp_path / ".checkpoint.unfinished").write_text("a longer half")
    with atomic_file(path, "checkpoint") as unfinished:
        unfinished.write_text("new")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["checkpoint"]


def test_errors_of_the_system_name_the_file_and_the_cure(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        FileError, match="report .*file/report.json cannot be written: .*; check the path"
    ):
        with atomic_file(tmp_path / "file" / "report.json", "report"):
            pass
    with pytest.raises(FileError, match="cannot be written: No space left on device"):
        with atomic_file(tmp_path / "report.json", "report"):
            raise OSError(28, os.strerror(28))
    with pytest.raises(FileError, match="^as it is$"):
        with atomic_file(tmp_path / "report.json", "report"):
            raise FileError("as it is")
    assert os.listdir(tmp_path) == ["file"]
