"""What pip has installed: the package, its native parts, its command."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import sysconfig

import pytest

import agflow
from agflow import _launcher

PACKAGE = pathlib.Path(agflow.__file__).parent
COMMAND = pathlib.Path(_launcher.COMMAND)
SOURCES = pathlib.Path(__file__).resolve().parents[3]
EXTENSION = PACKAGE / "_core" / ("_native" + sysconfig.get_config_var("EXT_SUFFIX"))
DISTRIBUTION = importlib.metadata.distribution("agflow")
EDITABLE = PACKAGE.is_relative_to(SOURCES / "python")
needs_wheel = pytest.mark.skipif(
    EDITABLE,
    reason="agflow is installed in place (pip install -e): this looks at what a wheel installs",
)
hosts_python = pytest.mark.skipif(
    b"agflow_abi_version" not in COMMAND.read_bytes(),
    reason="this Python has no shared libpython, so the command hosts none",
)


def output(*command: object, **options) -> str:
    return subprocess.run(
        [str(word) for word in command],
        check=True,
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
        "_bin/agflow",
        f"_core/{EXTENSION.name}",
    ):
        assert f"agflow/{name}" in files
    assert any(name.endswith("licenses/LICENSE") for name in files)
    assert not [name for name in files if name.endswith((".go", ".c", ".h"))]
    assert [name for name in files if name.endswith(".so")] == [f"agflow/_core/{EXTENSION.name}"]


def test_extension_leaves_libpython_and_paths_out():
    section = dynamic_section(EXTENSION)
    assert "libpython" not in section
    assert "RUNPATH" not in section and "RPATH" not in section
    content = EXTENSION.read_bytes()
    for folder in (SOURCES, pathlib.Path.home(), sys.base_prefix):
        if len(str(folder)) > len("/root"):  # a short path may stand there by chance
            assert str(folder).encode() not in content, folder


def test_extension_exports_its_entry():
    assert " T PyInit__native\n" in output("nm", "--dynamic", EXTENSION)


@hosts_python
def test_command_exports_the_core_and_finds_libpython():
    assert " T agflow_abi_version\n" in output("nm", "--dynamic", COMMAND)
    section = dynamic_section(COMMAND)
    assert f"libpython{sys.version_info.major}.{sys.version_info.minor}" in section
    assert "RUNPATH" in section or "RPATH" in section
    assert str(SOURCES).encode() not in COMMAND.read_bytes()


@pytest.mark.parametrize(
    "start",
    [[os.path.join(sysconfig.get_path("scripts"), "agflow")], [sys.executable, "-m", "agflow"]],
)
def test_command_is_of_the_package_version(start):
    assert output(*start, "--version").strip() == f"agflow version {DISTRIBUTION.version}"


@hosts_python
def test_doctor_finds_this_python_and_its_packages():
    environment = {"PATH": os.environ["PATH"]}  # nothing to lean on
    done = subprocess.run(
        [sys.executable, "-m", "agflow", "doctor", "--json"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout + done.stderr
    assert checks["interpreter"]["found"] == sys.executable
    assert checks["backend"]["found"] == "host"
    assert str(PACKAGE) in checks["package"]["found"]


def test_launcher_names_the_cure_when_the_command_is_gone(monkeypatch, tmp_path):
    monkeypatch.setattr(_launcher, "COMMAND", tmp_path / "agflow")
    with pytest.raises(
        SystemExit,
        match=r"cannot be started \(No such file or directory\): reinstall it with .* pip install",
    ):
        _launcher.main()
