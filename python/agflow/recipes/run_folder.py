"""The folder of a run: it belongs to one process at a time, and its files to one run."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from agflow._utils.files import file_errors
from agflow._utils.folders import FolderKind, files_of, sha256_of
from agflow._utils.json_file import Keys, write_json
from agflow._utils.scratch import collect_scratch, lock_folder
from agflow.errors import FileError
from agflow.models.expert import CONFIG, EXPERT_FOLDER
from agflow.recipes.results import RunOptions

RUN_FILE, LIGHT_FOLDER = "run.json", "light"
PICTURES = ("utilities.png", "stages.png", "cascade.png", "reliability.png", "escalated.png")
# The report comes last, and an older one goes first: where it is, the run is whole.
OUTPUTS = (
    *("report.json", "report.md", *PICTURES, "router.json"),
    *("curve.arrow", "predictions.arrow", "predictions-threshold.arrow"),
    *(f"{LIGHT_FOLDER}/{file}" for file in (CONFIG, *EXPERT_FOLDER.earlier)),
    *("plan.arrow", "statistics.arrow"),
)
RUN_FOLDER = FolderKind(
    "a run folder",
    RUN_FILE,
    keys={4: Keys(("recipe", "run", "options", "inputs", "sha256"))},
    earlier=(),
)


@contextmanager
def locked_folder(path: str | os.PathLike, kind: str) -> Iterator[pathlib.Path]:
    """Make a folder if need be, and keep other runs out of it as long as this process lives.

    Raises
    ------
    FileError
        It cannot be made, or another run is in it.
    """
    with file_errors(f"{kind} {path}"):
        folder = pathlib.Path(os.path.realpath(path))
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not lock_folder(descriptor):
            raise FileError(
                f"another run is writing to {path}: wait for its end, or choose another folder"
            )
        collect_scratch(folder)
        yield folder
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class RunFolder:
    """A run folder that this process holds.

    ``run.json`` has the run's id, a digest of its options and inputs. While the run is under way it
    names the files that may be there; :meth:`seal` adds their SHA-256.

    Attributes
    ----------
    path : of the folder
    """

    path: pathlib.Path

    def begin(self, options: RunOptions, inputs: dict[str, Any]) -> str:
        """Remove an older run's files and note whose files come now; the run's id.

        Raises
        ------
        FileError
            A file cannot be removed or written.
        """
        identity = {
            "recipe": "run",
            "options": {k: v for k, v in asdict(options).items() if k != "output"},
            "inputs": inputs,
        }
        run = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        with file_errors(f"run folder {options.output}"):
            for name in OUTPUTS:
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / LIGHT_FOLDER, ignore_errors=True)
        self._write({**identity, "run": run}, dict.fromkeys(OUTPUTS, ""))
        return run

    def seal(self) -> None:
        """Note the SHA-256 of every file of the finished run, so that it is known again."""
        content = RUN_FOLDER.read(self.path)
        del content["format"]
        names = (name for name in files_of(self.path) if name != RUN_FILE)
        self._write(content, {name: sha256_of(self.path / name) for name in names})

    def _write(self, content: dict[str, Any], sha256: dict[str, str]) -> None:
        write_json(self.path / RUN_FILE, {**content, "sha256": sha256}, "run file")


@contextmanager
def run_folder(path: str | os.PathLike) -> Iterator[RunFolder]:
    """The folder that a run fills; an older run's files stay until :meth:`RunFolder.begin`.

    Raises
    ------
    FileError
        Another run is in it, or it holds anything that no run has written.
    """
    with locked_folder(path, "run folder") as folder:
        with file_errors(f"run folder {path}"):
            fault = RUN_FOLDER.fault(folder)
        if fault:
            raise FileError(f"{path} {fault}, so it is not replaced; choose an empty --output")
        yield RunFolder(folder)
