"""The build's own errors: one sentence with the cure. Other tests check what it installs."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sysconfig

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


def test_without_shared_libpython_the_command_has_file_steps_only(build, monkeypatch, capsys):
    commands = []
    monkeypatch.setattr(build, "libpython_folder", lambda: None)
    monkeypatch.setattr(build, "run", lambda *command, **_: commands.append(command))
    build.build_command("go")
    assert "-tags=python" not in commands[0]
    assert "without the steps that host Python" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="only a Python built with --enable-shared can be hosted"):
        build.hosting_environment()


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_ENABLE_SHARED"), reason="this Python has no shared libpython"
)
def test_stand_in_for_pkg_config_hands_paths_with_blanks_on(build, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "ROOT", tmp_path / "with blank")
    environment = {**build.hosting_environment(), "PATH": os.environ["PATH"]}
    ask = lambda what: (
        subprocess.run(
            [ROOT / "python" / "pkg-config", what, "--", "python3"],
            env=environment,
            capture_output=True,
            text=True,
        ).stdout
    )
    assert r"with\ blank/python/compat.h" in ask("--cflags")
    assert f"-lpython{build.PYTHON}" in ask("--libs")
