"""The build's own errors: one sentence with the cure. Other tests check what it installs."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def build(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location(
        "build_native", ROOT / "python" / "build_native.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "BUILD", tmp_path / "build")
    return module


def program(folder: pathlib.Path, name: str, script: str) -> None:
    (folder / name).write_text("#!/bin/sh\n" + script)
    (folder / name).chmod(0o755)


def test_missing_go(build, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SystemExit,
        match=r"^agflow: Go is missing: .*install Go 1\.\d+ or newer from https://go.dev/dl",
    ):
        build.find_go()


@pytest.mark.parametrize(
    "answer", ["echo go1.18.1", "echo 'go: go.mod requires go >= 9.9' >&2; exit 1"]
)
def test_old_go(build, tmp_path, monkeypatch, answer):
    program(tmp_path, "go", answer)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"go is too old \(.*\): agflow needs Go 1\.\d+ or newer"):
        build.find_go()


def test_missing_compiler(build, tmp_path, monkeypatch):
    program(tmp_path, "go", "echo absent-cc")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="the C compiler absent-cc is missing: install gcc"):
        build.require_c_compiler(str(tmp_path / "go"))


def test_missing_headers(build, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "INCLUDE", str(tmp_path))
    with pytest.raises(SystemExit, match=r"Python.h is missing: install the headers of CPython"):
        build.require_python_headers()


def test_failed_step_shows_what_it_said(build, tmp_path, capsys):
    program(tmp_path, "step", "echo some reason; exit 1")
    with pytest.raises(SystemExit, match="this step of the native build failed"):
        build.run(tmp_path / "step")
    assert "some reason" in capsys.readouterr().err


@pytest.mark.parametrize("flags", ["t", "td"])
def test_free_threaded_python_is_refused_by_name(build, monkeypatch, flags):
    monkeypatch.setattr(sys, "abiflags", flags)
    with pytest.raises(SystemExit, match=r"the free-threaded build, which agflow does not support"):
        build.build()


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 14, 0), (4, 0, 0)])
def test_other_version_is_refused_by_name(build, monkeypatch, version):
    monkeypatch.setattr(build.sys, "version_info", version)
    with pytest.raises(SystemExit, match=r"is CPython 3.*: agflow needs CPython 3.10 to 3.13$"):
        build.build()


def test_other_implementation_is_refused_by_name(build, monkeypatch):
    monkeypatch.setattr(build.sys, "implementation", types.SimpleNamespace(name="pypy"))
    monkeypatch.setattr(build.platform, "python_implementation", lambda: "PyPy")
    with pytest.raises(SystemExit, match=r"is PyPy 3\.\d+: agflow needs CPython"):
        build.build()


def test_tests_of_hosting_need_a_shared_libpython(build, monkeypatch):
    monkeypatch.setattr(build, "PACKAGE", ROOT / "python" / "agflow")
    monkeypatch.setattr(build.runpy, "run_path", lambda _: {"libpython": lambda: ""})
    with pytest.raises(SystemExit, match="can be extended, but not hosted"):
        build.testing_environment("go")


def test_stand_in_for_libpython_has_every_name_that_the_headers_declare(build):
    build.hosting_environment("go")
    names = subprocess.run(
        ["nm", "--dynamic", build.BUILD / "libpython_names.so"], capture_output=True, text=True
    ).stdout
    for name in ("PyExc_KeyboardInterrupt", "_Py_NoneStruct", "Py_InitializeEx", "PyType_Type"):
        assert f" D {name}\n" in names


def test_stand_in_for_pkg_config_hands_paths_with_blanks_on(build, tmp_path, monkeypatch):
    folder = tmp_path / "with blank"
    (folder / "python").mkdir(parents=True)
    shutil.copy(ROOT / "python" / "compat.h", folder / "python")
    monkeypatch.setattr(build, "ROOT", folder)
    monkeypatch.setattr(build, "BUILD", folder / "build")
    environment = {**build.hosting_environment("go"), "PATH": os.environ["PATH"]}
    ask = lambda what: (
        subprocess.run(
            [ROOT / "python" / "pkg-config", what, "--", "python3"],
            env=environment,
            capture_output=True,
            text=True,
        ).stdout
    )
    assert r"with\ blank/python/compat.h" in ask("--cflags")
    assert r"with\ blank/build -lpython_names" in ask("--libs")
