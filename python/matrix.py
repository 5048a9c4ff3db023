"""Build the manylinux wheel on every CPython 3.10 to 3.13 found here and try it without torch."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from build_wheel import build, run

# Two systems' logits, routed where torch is not installed.
ROUTED = """
import sys, numpy, agflow
labels = numpy.arange(900) % 3
noise = numpy.random.default_rng(0).normal(size=(2, 900, 3))
light, heavy = 3 * numpy.eye(3)[labels] + noise[0], 9 * numpy.eye(3)[labels] + noise[1]
for name, values in {"light": light, "heavy": heavy, "labels": labels}.items():
    numpy.save(f"{name}.npy", values)
predictions = agflow.Predictions.of(light, heavy, labels, costs=(0.25, 1.0))
router = agflow.calibrate_router(predictions, tolerance=0.05)
assert router.verdict == "PASS" and agflow.evaluate_router(predictions, router).images == 900
router.save("expected.json")
assert "torch" not in sys.modules
"""
FILES = "--light light.npy --heavy heavy.npy --labels labels.npy --cost 0.25 --tolerance 0.05"

VERSIONS = ("3.10", "3.11", "3.12", "3.13")

# One batch of one layer through the extension module: sum |y*g| of each channel.
TRIAL = """
import json, numpy, pyarrow
from agflow._core import arrow
from agflow._core.loader import core, backend_name
layer = {"name": "blocks.0.mlp", "group": "mlp", "units": 2}
layer |= {"unit_width": 1, "unit_macs": 1, "unit_params": 1}
model = {"name": "trial", "macs": 2, "params": 2}
spec = {"model": model, "layers": [layer], "workers": 1, "metadata": {}}
session = core().statistics_open(json.dumps(spec))
y, g = numpy.array([[1, -2], [3, 4]], "f4"), numpy.array([[1, 1], [-1, 0.5]], "f4")
assert arrow.call(core().statistics_add, session, 0, 2, arrow.matrix(y), arrow.matrix(g)) == 2
table = arrow.call_for_batch(core().statistics_table, session)
assert table.column("sum_abs_yg").to_pylist() == [4.0, 4.0], table
assert backend_name() == "extension"
"""


def main() -> None:
    failures = 0
    for version in VERSIONS:
        python = find(version)
        if python is None:
            print(f"{version}  not on this machine", flush=True)
            continue
        try:
            with tempfile.TemporaryDirectory(prefix="agflow-matrix-") as folder:
                print(f"{version}  ok: {trial(python, pathlib.Path(folder))}", flush=True)
        except subprocess.CalledProcessError as error:
            failures += 1
            print(f"{version}  FAILED: {' '.join(map(str, error.cmd))}\n{error.stdout}", flush=True)
    sys.exit(failures > 0)


def find(version: str) -> str | None:
    """An interpreter of this version: on the PATH, or one of pyenv's."""
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *pyenv.glob(f"versions/*/bin/python{version}")]
    for python in filter(None, candidates):
        if (
            subprocess.run([python, "-c", ""], capture_output=True).returncode == 0
        ):  # a shim may have nothing behind it
            return str(python)
    return None


def trial(python: str, folder: pathlib.Path) -> str:
    """Build, install, call the core, start the command; returns the wheel's name."""
    environment = folder / "venv"
    run(python, "-m", "venv", environment)
    bin = environment / "bin"
    wheel = build(bin / "python", folder)
    pip = [bin / "pip", "--quiet", "--disable-pip-version-check", "install"]
    run(*pip, "numpy", "pyarrow")
    run(*pip, "--no-deps", wheel)
    run(bin / "python", "-c", TRIAL)
    run(bin / "agflow", "inspect", "--help")
    routed = {"check": True, "cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    subprocess.run([bin / "python", "-c", ROUTED], text=True, **routed)
    subprocess.run([bin / "agflow", "route", *FILES.split()], text=True, **routed)
    if (folder / "router.json").read_bytes() != (folder / "expected.json").read_bytes():
        raise subprocess.CalledProcessError(1, ["agflow", "route"], "routers differ")
    for start in ([bin / "agflow"], [bin / "python", "-m", "agflow"]):
        doctor = subprocess.run([*start, "doctor"], capture_output=True, text=True, cwd=folder)
        if "ok      backend      host" not in doctor.stdout:
            said = doctor.stdout + doctor.stderr
            raise subprocess.CalledProcessError(doctor.returncode, [*start, "doctor"], said)
    return wheel.name


if __name__ == "__main__":
    main()
