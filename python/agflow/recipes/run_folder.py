"""The folder of a run: it belongs to one process at a time, and its files to one run.

A recipe is a sequence of steps, each of which makes some files. ``run.json`` records for every
finished step the SHA-256 of its files and, as ``after``, a digest of the records before it. The
same run after a kill leaves out the steps whose files are still as recorded, and ends with the same
bytes: whatever a step needs of an earlier one, it reads from that one's files.
"""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from agflow._utils.files import file_errors
from agflow._utils.folders import FolderKind, files_of, sha256_of
from agflow._utils.json_file import Keys, write_json
from agflow._utils.scratch import collect_scratch, lock_folder
from agflow.cascade.file_names import CASCADE_FILE, HEAVY_FOLDER, LIGHT_FOLDER
from agflow.errors import FileError
from agflow.models.expert import EXPERT_FOLDER
from agflow.recipes.run_identity import RunIdentity, digest_json

RUN_FILE, STEPS_FOLDER = "run.json", "steps"
PICTURES = ("utilities.png", "stages.png", "cascade.png", "reliability.png", "escalated.png")
# The report comes last, and an older one goes first: where it is, the run is whole.
REPORTS = ("report.json", "report.md")
OUTPUTS = (
    *(*REPORTS, *PICTURES, "router.json", CASCADE_FILE),
    *("curve.arrow", "predictions.arrow", "predictions-threshold.arrow"),
    *(f"{LIGHT_FOLDER}/", f"{HEAVY_FOLDER}/", "plan.arrow", "statistics.arrow"),
    f"{STEPS_FOLDER}/",
)
RUN_FOLDER = FolderKind(
    "a run folder",
    RUN_FILE,
    keys={4: Keys(("recipe", "run", "options", "inputs", "sha256"), ("steps",))},
    earlier=(),
)

Say = Callable[[str], None]


@contextmanager
def locked_folder(path: str | os.PathLike, kind: str) -> Iterator[pathlib.Path]:
    """Make a folder if need be, and keep other runs out of it as long as this process lives.

    Raises
    ------
    FileError
        It cannot be made, or another run is in it.
    """
    folder = pathlib.Path(os.path.realpath(path))
    while True:
        with file_errors(f"{kind} {path}"):
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if not lock_folder(descriptor):
                raise FileError(
                    f"another run is writing to {path}: wait for its end, or choose another folder"
                )
            if not _is_still(descriptor, folder):  # removed by its owner before it was locked
                continue
            collect_scratch(folder)
            yield folder
            return
        finally:
            os.close(descriptor)


def _is_still(descriptor: int, folder: pathlib.Path) -> bool:
    return folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat())


class RunFolder:
    """A run folder that this process holds.

    While the run is under way, ``run.json`` names the files that may be there; :meth:`seal` puts
    their SHA-256 beside the names.

    Parameters
    ----------
    path : of the folder
    outputs : names of all that the recipe may put there; those of folders end with a slash
    say : receives a line of text at every step

    Raises
    ------
    FileError
        The folder holds anything that no run has written.
    """

    def __init__(self, path: pathlib.Path, outputs: Collection[str], say: Say):
        self.path, self._outputs, self._say = path, outputs, say
        with file_errors(f"run folder {path}"):
            fault = RUN_FOLDER.fault(path)
            for expert in (path / LIGHT_FOLDER, path / HEAVY_FOLDER):
                if fault is None and expert.exists():
                    fault = EXPERT_FOLDER.fault(expert)
        if fault:
            raise FileError(
                f"{path} {fault}, so it is not replaced: move that away, or choose an empty "
                "--output"
            )
        self._content: dict[str, Any] = {}
        if (path / RUN_FILE).exists():
            self._content = RUN_FOLDER.read(path)
            del self._content["format"]
        self._after = ""  # digest of the records of the steps before

    @property
    def run(self) -> str:
        """Id of the run that the folder is of; "" for none."""
        return self._content.get("run", "")

    @property
    def has_steps(self) -> bool:
        """Whether any step of a run is done."""
        return bool(self._content.get("steps"))

    def begin(self, identity: RunIdentity, *, force: bool, replace: bool) -> bool:
        """Take the folder for a run: go on with the same one, or remove another one's files.

        Parameters
        ----------
        force : begin anew where the folder is of the same run, too
        replace : whether files of another run may be removed

        Returns
        -------
        whether the folder holds the whole run already

        Raises
        ------
        FileError
            A file cannot be removed or written, or the folder is of another run.
        """
        same = self.run == identity.run and not force
        if same and self._is_whole():
            return True
        if not same:
            if not (replace or self._is_empty()):
                raise FileError(
                    f"{self.path} holds another run ({identity.difference(self._content)}): "
                    "--force replaces it, another --output keeps it"
                )
            self._remove(*self._outputs)
        self._remove(*REPORTS)
        steps = self._content.get("steps", {}) if same else {}
        steps.pop("report", None)
        self._content = {**asdict(identity), "run": identity.run, "steps": steps}
        self._write(dict.fromkeys(self._outputs, ""))
        return False

    def step(
        self, name: str, title: str, files: Sequence[str], make: Callable[[pathlib.Path], None]
    ) -> None:
        """Make the files of a step, unless they are there as they were written.

        ``make`` gets the step's own folder for what it goes on from after a kill: its inner steps
        keep their files there, which are gone once the step is done.

        Parameters
        ----------
        name : a word; that of an inner step begins with the outer one's and a slash
        title : says what is done; "" says nothing
        files : names below the run folder; those of folders, which may be missing, end with a slash
        """
        after, record = self._after, self._content["steps"].get(name)
        fault = "" if record is None else self._fault(record, files)
        done = record is not None and not fault
        if title:
            state = ": done before" if done else f": again, since {fault}" if fault else ""
            self._say(title + state)
        own = self.path / STEPS_FOLDER / name
        if not done:
            make(own)
            record = {"after": after, "sha256": self._digests(files)}
            steps = self._content["steps"]
            for inner in [step for step in steps if step.startswith(f"{name}/")]:
                del steps[inner]
            steps[name] = record
            self._write(dict.fromkeys(self._outputs, ""))
        shutil.rmtree(own, ignore_errors=True)
        self._after = digest_json(record)

    def seal(self) -> None:
        """Note the SHA-256 of every file of the finished run, so that it is known again."""
        names = (name for name in files_of(self.path) if name != RUN_FILE)
        self._write({name: sha256_of(self.path / name) for name in names})

    def forget(self) -> None:
        """Remove all files of a run whose results are elsewhere."""
        self._remove(*self._outputs, RUN_FILE)
        self._content = {}

    def _is_whole(self) -> bool:
        listed = self._content["sha256"]
        return all(digest and (self.path / name).exists() for name, digest in listed.items())

    def _is_empty(self) -> bool:
        return set(files_of(self.path)) <= {RUN_FILE}

    def _fault(self, record: dict[str, Any], files: Sequence[str]) -> str:
        """Why a finished step is done again, in words; "" where it is not."""
        if record["after"] != self._after:
            return "a step before it gave other files"
        for name, digest in record["sha256"].items():
            if not (self.path / name).exists():
                return f"{name} is missing"
            if sha256_of(self.path / name) != digest:
                return f"{name} is not as it was written"
        return ""

    def _digests(self, files: Sequence[str]) -> dict[str, str]:
        names: list[str] = []
        for name in files:
            if not name.endswith("/"):
                names.append(name)
            elif (self.path / name).is_dir():
                names += [name + file for file in files_of(self.path / name)]
        return {name: sha256_of(self.path / name) for name in names}

    def _remove(self, *names: str) -> None:
        with file_errors(f"run folder {self.path}"):
            for name in names:
                if name.endswith("/"):
                    shutil.rmtree(self.path / name, ignore_errors=True)
                else:
                    (self.path / name).unlink(missing_ok=True)

    def _write(self, sha256: dict[str, str]) -> None:
        write_json(self.path / RUN_FILE, {**self._content, "sha256": sha256}, "run file")


@contextmanager
def run_folder(
    path: str | os.PathLike, say: Say = print, outputs: Collection[str] = OUTPUTS
) -> Iterator[RunFolder]:
    """The folder that a run fills; an older run's files stay until :meth:`RunFolder.begin`.

    Raises
    ------
    FileError
        Another run is in it, or it holds anything that no run has written.
    """
    with locked_folder(path, "run folder") as folder:
        yield RunFolder(folder, outputs, say)
