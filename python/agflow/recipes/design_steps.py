"""The steps of a design, each with its files, and the cascade folder that they end in.

The steps' folder lies beside the cascade folder and has the same names in it, so that both are read
alike. It goes when the cascade folder is there.
"""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from torch import nn

from agflow._utils.folders import atomic_folder
from agflow._utils.json_file import Keys, read_json, write_json
from agflow.cascade.cascade_evaluation import evaluate_cascade
from agflow.cascade.file_names import LIGHT_FOLDER, ROUTER_FILE
from agflow.cascade.folder import CASCADE_FOLDER, write_cascade
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router
from agflow.data.preprocessing import Preprocessing
from agflow.evaluation.timing import first_images, time_models
from agflow.models.expert import PLAN, expert_tuning, load_expert, save_expert
from agflow.pruning.planning import Plan
from agflow.recipes.design_images import DesignImages
from agflow.recipes.kept_search import KeptSearch
from agflow.recipes.pipeline import TIMED_BATCH, TIMED_IMAGES
from agflow.recipes.results import verdict_of
from agflow.recipes.run_files import read_evaluation, read_timings, write_evaluation, write_timings
from agflow.recipes.run_folder import RUN_FILE, STEPS_FOLDER, RunFolder, Say, run_folder
from agflow.recipes.run_identity import RunIdentity
from agflow.search.design import CascadeDesign
from agflow.search.frontier import Frontier
from agflow.search.halving import SearchTraining, design_in_steps

if TYPE_CHECKING:
    from agflow.recipes.cascade_design import DesignOptions

CALIBRATING, TESTED = "predictions-threshold.arrow", "predictions.arrow"
FRONTIER, EVALUATION, TIMINGS = "frontier.arrow", "evaluation.json", "timings.json"
_OUTPUTS = (
    *(TIMINGS, EVALUATION, TESTED, ROUTER_FILE, CALIBRATING, FRONTIER),
    *(f"{LIGHT_FOLDER}/", f"{STEPS_FOLDER}/"),
)
_RUN_KEYS = {4: Keys(("recipe", "run", "options", "inputs"))}


@dataclass(frozen=True)
class DesignParts:
    """The heavy expert and the images of a design, and its options.

    Attributes
    ----------
    name : of the model
    """

    options: DesignOptions
    name: str
    heavy: nn.Module
    preprocessing: Preprocessing
    images: DesignImages

    def designed(self, path: pathlib.Path) -> CascadeDesign:
        """The design of a folder that has its files."""
        light, frontier = path / LIGHT_FOLDER, Frontier.load(path / FRONTIER)
        return CascadeDesign(
            self.options.computing.move(load_expert(light)),
            self.heavy,
            Plan.load(light / PLAN) if (light / PLAN).exists() else None,
            frontier.chosen,
            frontier,
            self.options.tolerance,
            expert_tuning(light),
        )


@contextmanager
def steps_folder(output: str, say: Say) -> Iterator[RunFolder]:
    """The folder of the steps beside the cascade folder ``output``, removed if it holds none.

    Raises
    ------
    FileError
        Another design of the same output is under way, or it holds anything else.
    """
    with run_folder(f"{os.path.realpath(output)}.partial", say, _OUTPUTS) as folder:
        try:
            yield folder
        finally:
            if not folder.has_steps:
                shutil.rmtree(folder.path)


def holds_run(output: str, run: str) -> bool:
    """Whether a cascade folder is the result of this run."""
    file = pathlib.Path(output, RUN_FILE)
    return file.exists() and read_json(file, "run file", _RUN_KEYS)["run"] == run


def make_steps(parts: DesignParts, folder: RunFolder) -> None:
    """Search, calibrate and evaluate, and time; each reads what it needs from earlier files."""
    folder.step(
        "search",
        "1/3 search: prune, distil and evaluate candidates",
        (f"{LIGHT_FOLDER}/", FRONTIER),
        lambda _: _search(parts, folder),
    )
    folder.step(
        "route",
        "2/3 calibrate the threshold on held-out images",
        (ROUTER_FILE, CALIBRATING, TESTED),
        lambda _: _route(parts, folder.path),
    )
    folder.step(
        "evaluate",
        "3/3 run the cascade on the test images",
        (EVALUATION, TIMINGS),
        lambda _: _evaluate(parts, folder.path),
    )


def finish(parts: DesignParts, folder: RunFolder, identity: RunIdentity) -> None:
    """Write the cascade folder, which appears whole, and remove that of the steps."""
    path = folder.path
    made = parts.designed(path)
    router, evaluation = Router.load(path / ROUTER_FILE), read_evaluation(path / EVALUATION)
    counts = verdict_of(router, evaluation, read_timings(path / TIMINGS))
    with atomic_folder(parts.options.output, CASCADE_FOLDER) as output:
        for name in (CALIBRATING, TESTED, FRONTIER, EVALUATION, TIMINGS):
            shutil.copyfile(path / name, output / name)
        (output / "frontier.md").write_text(made.frontier.markdown(counts), encoding="utf-8")
        write_json(output / RUN_FILE, {**asdict(identity), "run": identity.run}, "run file")
        write_cascade(
            made.cascade(router),
            output,
            preprocessing=parts.preprocessing,
            tuning=made.tuning,
            plan=made.plan,
            counts=counts,
        )
    folder.forget()


def _search(parts: DesignParts, folder: RunFolder) -> None:
    options = parts.options
    made = design_in_steps(
        parts.heavy,
        parts.images.tuning,
        parts.images.choosing,
        KeptSearch(folder, "search", parts.preprocessing),
        tolerance=options.tolerance,
        space=options.space,
        training=SearchTraining(options.epochs, options.lr, options.seed),
    )
    save_expert(
        made.light,
        folder.path / LIGHT_FOLDER,
        made.plan,
        parts.preprocessing,
        tuning=made.tuning,
    )
    made.frontier.save(folder.path / FRONTIER)


def _route(parts: DesignParts, path: pathlib.Path) -> None:
    made = parts.designed(path)
    calibrating = made.predict(parts.images.calibrating)
    router = made.calibrate(calibrating, confidence=parts.options.confidence)
    calibrating.save(path / CALIBRATING)
    router.save(path / ROUTER_FILE)
    made.predict(parts.images.test, router).save(path / TESTED)


def _evaluate(parts: DesignParts, path: pathlib.Path) -> None:
    made, test = parts.designed(path), parts.images.test
    cascade = made.cascade(Router.load(path / ROUTER_FILE))
    evaluation = evaluate_cascade(cascade, test, Predictions.load(path / TESTED))
    x = first_images(test.dataset, TIMED_IMAGES).to(parts.options.device)
    contenders = {"heavy": made.heavy, "light": made.light, "cascade": cascade}
    write_evaluation(path / EVALUATION, evaluation)
    write_timings(path / TIMINGS, time_models(contenders, x, batch=TIMED_BATCH))
