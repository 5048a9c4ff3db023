"""Whatever writes: what it must not replace, links, full disks and disks that are read-only."""

import contextlib
import os
import pathlib
import resource
import shutil
import stat
import subprocess

import matplotlib.figure
import pytest
import torch

import agflow
from agflow._utils.files import atomic_file, write_text
from agflow._utils.json_file import write_json
from agflow.cascade.curves import curve
from agflow.errors import FileError
from agflow.exporting.models import export_module
from agflow.models import at_image_size
from agflow.training import Checkpointing, checkpoint_file

FOLDERS = ("expert", "cascade")


def picture(path):
    with atomic_file(path, "picture") as made:
        matplotlib.figure.Figure().savefig(made, format="png")


@pytest.fixture(scope="module")
def writers():
    """Everything that agflow writes, as functions of a path."""
    torch.manual_seed(0)
    model, _, _ = agflow.load_model("example")
    light = at_image_size(model, 8)
    batches = [(torch.rand(8, 1, 28, 28), torch.arange(8))]
    statistics = agflow.calibrate(light, batches)
    predictions = agflow.predict(light, model, batches)
    router = agflow.calibrate_router(predictions, escalation=0.9)
    tiny = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))

    def checkpoint(path):
        checkpoint_file.write(pathlib.Path(path), {"run": {}, "progress": {}}, tiny.state_dict())

    def exported(path):
        export_module(tiny, path, torch.rand(2, 1, 2, 2), {"name": "tiny"}, format="torch")

    return {
        "statistics": statistics.save,
        "scores": agflow.score(statistics).save,
        "plan": agflow.plan(statistics, macs=0.9).save,
        "predictions": predictions.save,
        "curve": curve(predictions).save,
        "router": router.save,
        "checkpoint": checkpoint,
        "export": exported,
        "json": lambda path: write_json(path, {"x": "y" * 400}, "report"),
        "text": lambda path: write_text(path, "y" * 400, "report"),
        "picture": picture,
        "expert": lambda path: agflow.save(model, path),
        "cascade": lambda path: agflow.save(agflow.Cascade(light, model, router), path),
    }


WRITERS = [
    *("statistics", "scores", "plan", "predictions", "curve", "router", "checkpoint", "export"),
    *("json", "text", "picture", "expert", "cascade"),
]


@pytest.fixture(params=WRITERS)
def writer(request, writers):
    return request.param, writers[request.param]


def everything(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_devices_pipes_and_foreign_folders_stay(writer, tmp_path):
    name, write = writer
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    before = everything(tmp_path)
    for path in ("/dev/null", "/dev/full", tmp_path / "pipe", tmp_path / "null", "/", "."):
        with pytest.raises(FileError, match="so it is not replaced"):
            write(path)
    with pytest.raises(FileError, match="photos .*so it is not replaced"):
        write(tmp_path / "photos")
    assert everything(tmp_path) == before and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_links_are_followed(writer, tmp_path):
    name, write = writer
    (tmp_path / "deep").mkdir()
    (tmp_path / "latest").symlink_to("deep/v1")
    for _ in range(2):  # there is nothing, then an older one
        write(tmp_path / "latest")
        assert (tmp_path / "latest").is_symlink() and os.listdir(tmp_path / "deep") == ["v1"]
    assert (tmp_path / "deep" / "v1").is_dir() == (name in FOLDERS)


@contextlib.contextmanager
def full_disk():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_leaves_the_older_and_names_the_file(writer, tmp_path):
    name, write = writer
    for older in (False, True):
        if older:
            write(tmp_path / "out")
        before = everything(tmp_path)
        with full_disk(), pytest.raises(FileError, match="out") as raised:
            write(tmp_path / "out")
        assert everything(tmp_path) == before and "\n" not in str(raised.value)


def test_a_path_below_a_file_is_one_sentence(writer, tmp_path):
    name, write = writer
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FileError, match="file/out"):
        write(tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of 64 kB at a folder, read-only when asked; only root can."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options):
        if shutil.which("mount") is None:
            pytest.skip("there is no mount")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", place], capture_output=True
        )
        if done.returncode:
            pytest.skip("this process cannot mount a disk")
        return place

    yield mount
    subprocess.run(["umount", place], capture_output=True)


@pytest.mark.slow
def test_a_disk_that_is_full_or_read_only(writer, tmp_path, small_disk):
    name, write = writer
    disk = small_disk("size=8k")
    (disk / "photo").write_bytes(b"x" * 8192)
    before = everything(disk)
    with pytest.raises(FileError, match="out"):
        write(disk / "out")
    assert everything(disk) == before
    small_disk("ro")
    with pytest.raises(FileError, match=r"out.*[Rr]ead-only file system"):
        write(disk / "out")
    assert everything(disk) == {}
    subprocess.run(["umount", disk], check=True)


def test_a_checkpoint_that_cannot_be_written_stops_the_training_before_it_begins(tmp_path):
    model, _, _ = agflow.load_model("example")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file/run cannot be written: Not a directory"):
        agflow.finetune(
            model,
            [(torch.rand(2, 1, 28, 28), torch.arange(2))],
            epochs=1,
            checkpointing=Checkpointing(tmp_path / "file" / "run"),
        )
