"""The command of the steps on files builds for systems that have no C compiler here."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
# How a program of a system begins.
BEGIN = {
    ("linux", "amd64"): b"\x7fELF\x02\x01",
    ("linux", "arm64"): b"\x7fELF\x02\x01",
    ("darwin", "amd64"): b"\xcf\xfa\xed\xfe\x07\x00\x00\x01",
    ("darwin", "arm64"): b"\xcf\xfa\xed\xfe\x0c\x00\x00\x01",
    ("windows", "amd64"): b"MZ",
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("target", BEGIN, ids="-".join)
def test_command_builds_without_c(tmp_path, target):
    system, machine = target
    environment = {**os.environ, "CGO_ENABLED": "0", "GOOS": system, "GOARCH": machine}
    for words in (["build", "-o", tmp_path / "agflow", "./cli"], ["vet", "./cli", "./core/..."]):
        done = subprocess.run(
            ["go", *words], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "agflow").read_bytes().startswith(BEGIN[target])
