"""What pip has installed: the package, its native parts, its command."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

import agflow
from agflow import _launcher

PACKAGE = pathlib.Path(agflow.__file__).parent
HOST = pathlib.Path(_launcher.HOST)
SOURCES = pathlib.Path(__file__).resolve().parents[3]
EXTENSION = PACKAGE / "_core" / ("_native" + sysconfig.get_config_var("EXT_SUFFIX"))
DISTRIBUTION = importlib.metadata.distribution("agflow")
EDITABLE = PACKAGE.is_relative_to(SOURCES / "python")
COMMAND = pathlib.Path(
    _launcher.IN_PLACE if EDITABLE else os.path.join(sysconfig.get_path("scripts"), "agflow")
)
needs_wheel = pytest.mark.skipif(
    EDITABLE,
    reason="agflow is installed in place (pip install -e): this looks at what a wheel installs",
)
hosts_python = pytest.mark.skipif(
    not _launcher.libpython(), reason="this Python has no shared libpython: it cannot be hosted"
)


def output(*command: object, check: bool = True, **options) -> str:
    return subprocess.run(
        [str(word) for word in command],
        check=check,
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    ).stdout


def dynamic_section(file: pathlib.Path) -> str:
    return output("readelf", "--dynamic", "--wide", file)


@needs_wheel
def test_wheel_is_tagged_for_this_python():
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"Tag: {version}-{version}-linux_" in DISTRIBUTION.read_text("WHEEL")


@needs_wheel
def test_wheel_ships_data_and_licence_and_no_build_files():
    files = {str(file) for file in DISTRIBUTION.files}
    for name in (
        "py.typed",
        "defaults.json",
        "example/fashion_mnist_mini.npz",
        "example/NOTICE",
        "_bin/agflow-host",
        f"_core/{EXTENSION.name}",
    ):
        assert f"agflow/{name}" in files
    assert any(name.endswith("bin/agflow") for name in files)
    assert any(name.endswith("licenses/LICENSE") for name in files)
    assert not [name for name in files if name.endswith((".go", ".c", ".h"))]
    assert [name for name in files if name.endswith(".so")] == [f"agflow/_core/{EXTENSION.name}"]


@pytest.mark.parametrize("file", [EXTENSION, HOST], ids=lambda file: file.name)
def test_parts_need_no_libpython_and_name_no_folder_of_the_build(file):
    section = dynamic_section(file)
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", section))
    assert needed <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"}
    assert "RUNPATH" not in section and "RPATH" not in section


def test_command_is_static():
    assert "There is no dynamic section" in dynamic_section(COMMAND)
    assert "INTERP" not in output("readelf", "--program-headers", COMMAND)


@pytest.mark.parametrize("file", [EXTENSION, HOST, COMMAND], ids=lambda file: file.name)
def test_no_part_tells_where_it_was_built(file):
    content = file.read_bytes()
    for folder in (SOURCES, pathlib.Path.home(), sys.base_prefix):
        if len(str(folder)) > len("/root"):  # a short path may stand there by chance
            assert str(folder).encode() not in content, folder


def test_extension_exports_its_entry():
    assert " T PyInit__native\n" in output("nm", "--dynamic", EXTENSION)


def test_host_exports_the_core_and_copies_nothing_of_python():
    assert " T agflow_abi_version\n" in output("nm", "--dynamic", HOST)
    relocations = output("readelf", "--relocs", "--wide", HOST)
    assert "_Py_NoneStruct" in relocations
    assert "_COPY" not in relocations  # the build does not know how large Python's objects are


@pytest.mark.parametrize(
    "start",
    [[COMMAND], [sys.executable, "-m", "agflow"]],
    ids=["command", "module"],
)
def test_command_is_of_the_package_version(start):
    assert output(*start, "--version").strip() == f"agflow version {DISTRIBUTION.version}"


def test_file_steps_need_nothing_around_them(tmp_path):
    alone = shutil.copy(COMMAND, tmp_path)
    answer = output(alone, "--json", "doctor", env={}, check=False)
    assert json.loads(answer)["found"][0]["name"] == "agflow"
    assert "no Python interpreter at python3" in json.loads(answer)["found"][1]["found"]


@hosts_python
@pytest.mark.parametrize(
    "start",
    [
        [COMMAND, *(["--python", sys.executable] if EDITABLE else [])],
        [sys.executable, "-m", "agflow"],
    ],
    ids=["command", "module"],
)
def test_doctor_finds_the_python_beside_it_and_its_packages(start):
    environment = {"PATH": "/usr/bin:/bin", "VIRTUAL_ENV": "/nowhere"}  # nothing to lean on
    if EDITABLE:
        environment["PYTHONPATH"] = str(PACKAGE.parent)
    answer = output(*start, "doctor", "--json", env=environment, check=False)
    checks = {check["name"]: check for check in json.loads(answer)}
    assert os.path.dirname(checks["interpreter"]["found"]) == os.path.dirname(sys.executable)
    assert checks["backend"]["found"] == "host"
    assert str(PACKAGE) in checks["package"]["found"]
    assert _launcher.libpython() in checks["python"]["found"]
    assert all(check["ok"] for check in checks.values()), answer


@pytest.mark.parametrize("library", ["", "/lib/libpython3.11.so.1.0"])
def test_launcher_names_the_cure_when_the_command_is_gone(monkeypatch, tmp_path, library):
    monkeypatch.setattr(_launcher, "HOST", tmp_path / "agflow-host")
    monkeypatch.setattr(_launcher, "_installed_command", lambda: tmp_path / "agflow")
    monkeypatch.setattr(_launcher, "IN_PLACE", tmp_path / "agflow")
    monkeypatch.setattr(_launcher, "libpython", lambda: library)
    with pytest.raises(
        SystemExit,
        match=r"cannot be started \(No such file or directory\): reinstall it with .* pip install",
    ):
        _launcher.main()


@needs_wheel
def test_module_without_libpython_is_the_command_of_file_steps(monkeypatch):
    started = []
    monkeypatch.setattr(_launcher, "libpython", lambda: "")
    monkeypatch.setattr(os, "execve", lambda command, *_: started.append(command))
    _launcher.main()
    assert started == [str(COMMAND)]
