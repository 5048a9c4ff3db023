"""Files that appear whole or not at all, and what they must not replace."""

import os
import resource
import stat
import subprocess
import sys
import threading
import time

import pytest

from agflow._utils.files import atomic_file, check_file, read_bytes, write_text
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


def test_what_a_killed_process_left_is_collected(tmp_path):
    code = """
import os, signal, sys
from agflow._utils.files import atomic_file
with atomic_file(sys.argv[1], "report") as made:
    made.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "report.json"
    done = subprocess.run([sys.executable, "-c", code, path], timeout=60)
    assert done.returncode == -9
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".agflow-") and not path.exists()
    write_text(path, "new", "report")
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["report.json"]


def test_what_a_living_writer_has_is_not_collected(tmp_path):
    with atomic_file(tmp_path / "one", "file") as made:
        made.write_text("one")
        with atomic_file(tmp_path / "one", "file") as other:
            other.write_text("other")
        assert (tmp_path / "one").read_text() == "other"
    assert (tmp_path / "one").read_text() == "one" and os.listdir(tmp_path) == ["one"]


def test_two_writers_of_one_name_never_fail_and_nobody_reads_half(tmp_path):
    path, contents = tmp_path / "checkpoint", [bytes([i]) * 100_000 for i in range(3)]
    failed = []

    def writer(content):
        for _ in range(20):
            try:
                with atomic_file(path, "checkpoint") as made:
                    made.write_bytes(content)
            except FileError as error:
                failed.append(error)

    threads = [threading.Thread(target=writer, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if path.exists():
            assert path.read_bytes() in contents
    assert not failed and os.listdir(tmp_path) == ["checkpoint"]


def test_links_are_followed(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_text("old")
    for target in ("deep/file", "deep/missing"):
        link = tmp_path / "link"
        link.symlink_to(target)
        write_text(link, "new", "file")
        assert link.is_symlink() and (tmp_path / target).read_text() == "new"
        link.unlink()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FileError, match="Too many levels of symbolic links"):
        write_text(tmp_path / "loop", "new", "file")
    assert sorted(os.listdir(tmp_path)) == ["deep", "loop"]


def test_what_is_no_regular_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    deleted = open(tmp_path / "deleted", "w")  # noqa: SIM115
    (tmp_path / "deleted").unlink()
    names = [tmp_path / "pipe", tmp_path / "folder", tmp_path / "link", "/dev/null", "/dev/full"]
    log = open(tmp_path.parent / "log", "w")  # noqa: SIM115
    names += [f"/dev/fd/{deleted.fileno()}", f"/proc/self/fd/{log.fileno()}"]
    for name in [*names, "", ".", "/"]:
        for refused in (lambda path: write_text(path, "new", "file"), check_file):
            with pytest.raises(FileError, match="is no regular file, so it is not replaced"):
                refused(name) if refused is not check_file else check_file(name, "file")
    deleted.close()
    log.close()
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode) and (tmp_path / "pipe").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["folder", "link", "pipe"]


def test_the_rights_of_an_older_file_stay(tmp_path):
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    write_text(path, "new", "file")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_leaves_the_older_file_and_names_it(tmp_path):
    path = tmp_path / "report"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(FileError, match="report .*report cannot be written: File too large"):
            write_text(path, "new" * 1000, "report")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report"]


def test_only_regular_files_are_read_and_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    for name in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(FileError, match="is no regular file"):
            read_bytes(name, "file")
    assert time.monotonic() - began < 1


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
