"""Folder of a run of iterative pruning, from which the same run goes on after a crash."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from dataclasses import asdict, fields
from typing import Any, cast

from torch import nn

from agflow._utils.json_file import Keys, read_json, write_json
from agflow._utils.scratch import collect_scratch
from agflow.calibration.loss import loss_name
from agflow.errors import CorruptFileError, FileError, InvalidValueError
from agflow.models.expert import load_expert, save_expert
from agflow.pruning.planning import Plan
from agflow.pruning.scoring import criterion_name
from agflow.recipes.step_options import StepOptions
from agflow.recipes.steps import Step, StepExpert
from agflow.training.digests import digest_of
from agflow.training.options import Distillation

RECIPE = "prune_iteratively"
_REQUEST, _FUNCTIONS = (
    ("model", "macs", "steps", "seed"),
    ("calibrate", "plan", "prune", "finetune"),
)
# run.json of an earlier version names only the options that were given; these were the others.
_EARLIER_DEFAULTS = StepOptions(batches=16)
_RUN_KEYS = {4: Keys(("recipe", *_REQUEST, *_FUNCTIONS)), 0: Keys(_REQUEST, _FUNCTIONS)}
_STEP_KEYS = {version: Keys([field.name for field in fields(Step)]) for version in (4, 0)}


class StepCache:
    """Keeps the experts of a run in a folder, and finds those that are there.

    ``run.json`` holds the request. Step n is the expert folder ``step-n`` with its record
    ``step-n.json``; before its fine-tuning has ended it is ``step-n-cut`` with ``step-n-cut.json``
    and the checkpoint ``step-n-checkpoint``. A record is written last, when its expert is whole.

    Parameters
    ----------
    request : what the run was asked for next to ``model`` and ``options``: JSON-ready values

    Raises
    ------
    FileError, CorruptFileError
        The folder holds something else, cannot be read or written, or ``run.json`` is damaged.
    InvalidValueError
        The folder is of another run; the message names the first difference.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        model: nn.Module,
        request: dict[str, Any],
        options: StepOptions,
    ):
        self.folder, self.preprocessing = pathlib.Path(folder), options.preprocessing
        now = _as_json({"model": model, **request, **_by_function(options)})
        collect_scratch(self.folder)
        if not (self.folder / "run.json").exists():
            self._check_empty()
            self._write("run", {"recipe": RECIPE, **now})
        then = read_json(self.folder / "run.json", "run file", _RUN_KEYS)
        if then.get("recipe", RECIPE) != RECIPE:
            raise FileError(f"{self.folder} holds a run of another recipe: choose another folder")
        for name, options_then in _as_json(_by_function(_EARLIER_DEFAULTS)).items():
            if not isinstance(then.setdefault(name, {}), dict):
                raise CorruptFileError(f"{name} in {self.folder / 'run.json'} is no object")
            then[name] = {**options_then, **then[name]}
        for name, value in now.items():
            if then.get(name) != value:
                raise InvalidValueError(
                    f"{self.folder} is of another run ({name}: {then.get(name)} then, "
                    f"{value} now): repeat that one, or choose another folder"
                )

    def find(self, number: int, *, tuned: bool) -> StepExpert | None:
        """The expert of a step on the CPU, after or before its fine-tuning; None without one."""
        name = _name(number, tuned)
        if not (self.folder / f"{name}.json").exists():
            return None
        try:
            content = read_json(self.folder / f"{name}.json", "step file", _STEP_KEYS)
            del content["format"]
            record = Step(**{**content, "history": tuple(content["history"])})
        except (TypeError, KeyError) as error:
            raise CorruptFileError(
                f"{self.folder / name}.json is no record of a step ({error}): "
                "delete it to repeat the step"
            ) from error
        expert = self.folder / name
        return StepExpert(load_expert(expert), Plan.load(expert / "plan.arrow"), record)

    def keep(self, expert: StepExpert, *, tuned: bool) -> None:
        """Write the expert of a step and then its record."""
        name = _name(expert.record.number, tuned)
        save_expert(expert.model, self.folder / name, expert.plan, self.preprocessing)
        self._write(name, asdict(expert.record))

    def clear(self, number: int) -> None:
        """Remove what a finished step was made from, and what killed processes left behind."""
        pruned = self.folder / _name(number, tuned=False)
        pruned.with_suffix(".json").unlink(missing_ok=True)
        self.checkpoint(number).unlink(missing_ok=True)
        shutil.rmtree(pruned, ignore_errors=True)
        collect_scratch(self.folder)

    def checkpoint(self, number: int) -> pathlib.Path:
        """File of the fine-tuning under way in a step."""
        return self.folder / f"step-{number}-checkpoint"

    def _check_empty(self) -> None:
        """FileError unless the folder is missing or empty."""
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise FileError(
                f"{self.folder} exists and holds no run of prune_iteratively: choose another folder"
            )

    def _write(self, name: str, content: dict) -> None:
        write_json(self.folder / f"{name}.json", content, "step file")


def _name(number: int, tuned: bool) -> str:
    return f"step-{number}" if tuned else f"step-{number}-cut"


def _by_function(options: StepOptions) -> dict[str, dict[str, Any]]:
    """Options as ``run.json`` has them: under the function that they decide."""
    distillation, teacher = options.distillation or Distillation(), None
    if options.distillation is not None:
        teacher = "model" if distillation.teacher is None else distillation.teacher
    return {
        "calibrate": {
            "batches": options.batches,
            "groups": list(options.groups),
            "image_size": options.image_size,
            "loss": loss_name(options.loss, options.calibration),
            "weight_gradients": options.weight_gradients,
            "nonfinite": options.calibration.nonfinite,
            "dump": options.calibration.dump,
        },
        "plan": {
            "criterion": criterion_name(options.criterion),
            **vars(options.allocation),
            "groups": list(options.allocation.groups),
            "ignored_layers": [*cast(tuple, options.allocation.ignored_layers)],
        },
        "prune": {"compensate": options.compensate},
        "finetune": {
            "teacher": teacher,
            "epochs": options.epochs,
            "lr": options.lr,
            "temperature": distillation.temperature,
            "distill": distillation.share,
            "features": distillation.features,
            # a callback watches the training and changes nothing of it
            **{name: value for name, value in vars(options.training).items() if name != "callback"},
            "checkpoint_every": options.checkpoint_every,
        },
    }


def _as_json(request: dict[str, Any]) -> dict[str, Any]:
    """``request`` as it is when read from a file: models by their digests."""
    digest = lambda value: digest_of(value) if isinstance(value, nn.Module) else repr(value)
    return json.loads(json.dumps(request, default=digest))
