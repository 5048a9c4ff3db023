"""``agflow bench coverage``: which models agflow prunes, each tried in a process of its own."""

from __future__ import annotations

import datetime
import importlib.util
import json
import pathlib
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agflow._utils.defaults import default
from agflow._utils.files import atomic_file, check_file
from agflow.bench import coverage_page, machine
from agflow.bench.coverage_models import LIBRARIES, LISTS, models_of
from agflow.errors import CorruptFileError, FileError, InvalidValueError

RESULTS, CSV, PAGE = "coverage.jsonl", "coverage.csv", "README.md"
_PATIENCE = 10  # how many times its CPU time a process may take of the wall's
_VERSIONS = "agflow", "torch", *LIBRARIES


@dataclass(frozen=True)
class CoverageOptions:
    """Options of one run; the command's flags have the same names.

    Attributes
    ----------
    library : lists of :data:`agflow.bench.coverage_models.LISTS`; without lists and models, all
    models : further models by name, ``library:name`` or ``module:function``
    seconds, memory : CPU seconds and GiB that the trial of one model may take
    peer : also try each model with torch-pruning
    results : file of JSON lines, one a model, that a later run goes on with; by default in
        ``output``
    output : folder of the page and the table
    """

    library: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    seconds: int = default("bench_coverage", "seconds")
    memory: int = default("bench_coverage", "memory")
    peer: bool = default("bench_coverage", "peer")
    results: str | None = None
    output: str = default("bench_coverage", "output")


def measure(options: CoverageOptions, say: Callable[[str], None] = print) -> dict:
    """Try each model that the results do not hold yet.

    The page and the table are written at once and after each model, so that they always show what
    is known; whatever ends the run, the next one goes on. What took too long is tried again where
    it is given more time.

    Parameters
    ----------
    say : receives a line a model

    Returns
    -------
    figures ready for JSON: outcomes by list, the rows, what could not be tried, and the files

    Raises
    ------
    InvalidValueError
        An unknown list, or the peer is not installed.
    CorruptFileError
        The results hold a line that is none of theirs.
    FileError
        The folder or the results cannot be written or read.
    """
    lists, missing = _lists(options)
    output = pathlib.Path(options.output)
    results = pathlib.Path(options.results or output / RESULTS)
    for path in (results, output / PAGE, output / CSV):
        check_file(path, "coverage")
    done = _read(results)

    def write() -> None:
        page = coverage_page.page(lists, done, missing, _command(options))
        for name, text in ((PAGE, page), (CSV, coverage_page.table(lists, done))):
            with atomic_file(output / name, "coverage") as path:
                path.write_text(text)

    write()
    for reason in missing:
        say(reason)
    for spec in dict.fromkeys(spec for specs in lists.values() for spec in specs):
        row = done.get(spec, {"model": spec})
        found = {**row, **_trials(spec, row, options)}
        if found != row:
            done[spec] = found
            results.parent.mkdir(parents=True, exist_ok=True)
            with results.open("a") as file:
                file.write(json.dumps(found) + "\n")
            write()
            say(coverage_page.line(found))
    return {
        "counts": coverage_page.counts(lists, done),
        "missing": missing,
        "rows": [done[spec] for specs in lists.values() for spec in specs],
        "page": str(output / PAGE),
        "csv": str(output / CSV),
        "results": str(results),
    }


def text(found: dict) -> str:
    """The figures as text."""
    counted = coverage_page.summary(found["counts"])
    return "\n".join([*counted, *found["missing"], f"{found['page']}, {found['csv']}"])


def _lists(options: CoverageOptions) -> tuple[dict[str, list[str]], list[str]]:
    """The models of each list, and why some are left out."""
    if options.peer and importlib.util.find_spec("torch_pruning") is None:
        raise InvalidValueError(
            "peer needs torch-pruning, which is not installed: pip install 'agflow[bench]'"
        )
    lists: dict[str, list[str]] = {}
    absent = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    names = options.library or (() if options.models else tuple(LISTS))
    for name in names:
        specs = [] if name in absent else models_of(name)
        lists[name] = [spec for spec in specs if spec.partition(":")[0] not in absent]
    if options.models:
        lists["models"] = list(options.models)
    return lists, [f"{name} is not installed, its models are left out" for name in absent]


def _read(results: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The rows of an earlier run by model; of several for one model the last."""
    if not results.exists():
        return {}
    try:
        lines = results.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"results {results} cannot be read: {error}") from error
    done = {}
    for number, one in enumerate(lines, 1):
        try:
            row = json.loads(one)
            done[row["model"]] = {**row, "agflow": {**row["agflow"]}}
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptFileError(
                f"line {number} of the results {results} is none that agflow bench coverage wrote: "
                "remove it, or name another file"
            ) from error
    return done


def _trials(spec: str, row: dict[str, Any], options: CoverageOptions) -> dict[str, Any]:
    """What was not known of a model."""
    found: dict[str, Any] = {}
    known = row.get("agflow", {})
    slow = known.get("outcome") == coverage_page.TOO_SLOW and known["limit"] < options.seconds
    if slow or not known:
        found["agflow"] = {
            **_in_process("agflow", spec, options),
            "limit": options.seconds,
            "date": datetime.date.today().isoformat(),
            "versions": machine.versions(_VERSIONS),
        }
    if options.peer and "peer" not in row:
        found["peer"] = {
            **_in_process("peer", spec, options),
            "versions": machine.versions(["torch-pruning"]),
        }
    return found


def _in_process(side: str, spec: str, options: CoverageOptions) -> dict[str, Any]:
    """The row of one trial, or how its process ended without one."""
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "row.json"
        asked = {"side": side, "model": spec, "seconds": options.seconds, "file": str(file)}
        request = json.dumps({**asked, "memory": options.memory << 30})
        before, status, said = _seconds_of_children(), None, ""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "agflow.bench.coverage_trial", request],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE * options.seconds,
            )
            status, said = done.returncode, done.stderr
        except subprocess.TimeoutExpired:
            pass
        used = _seconds_of_children() - before
        row = json.loads(file.read_text()) if file.exists() else {"step": "start"}
    if "outcome" in row:
        return row
    out_of_time = status == -signal.SIGKILL and used > options.seconds - 1
    if status is None or out_of_time:
        reason = f"more than {options.seconds} s, at the step {row['step']!r}"
        return {**row, "outcome": coverage_page.TOO_SLOW, "reason": reason}
    ended = f"status {status}" if status >= 0 else signal.Signals(-status).name
    last = (said.strip().splitlines() or ["nothing on stderr"])[-1]
    reason = f"its process ended with {ended} at the step {row['step']!r}: {last[:300]}"
    return {**row, "outcome": coverage_page.FAILED, "reason": reason}


def _seconds_of_children() -> float:
    """CPU time of the processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _command(options: CoverageOptions) -> str:
    """The command that goes on with a run."""
    lists = f" --library {','.join(options.library)}" if options.library else ""
    models = f" --models {','.join(options.models)}" if options.models else ""
    peer = " --peer" if options.peer else ""
    return f"agflow bench coverage{lists}{models}{peer} --seconds {options.seconds}"
