"""Calibrate, plan, cut, repair and fine-tune in several smaller steps instead of one large one, each kept on disk."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from torch import nn

from agflow._utils.ranks import Ranks
from agflow.calibration.calibration import calibrate
from agflow.calibration.statistics import Statistics
from agflow.data.preprocessing import Preprocessing
from agflow.errors import CorruptFileError, FileError, InvalidValueError
from agflow.evaluation.accuracy import evaluate
from agflow.models import count_macs, count_params
from agflow.models.expert import load_expert, save_expert
from agflow.pruning.planning import Plan, plan
from agflow.pruning.pruner import prune
from agflow.training.checkpoint import digest_of, generators_of, seeded
from agflow.training.finetuning import finetune
from agflow.training.options import Checkpointing, Distillation

CONTROL_IMAGES = 2048
_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Step:
    """What one step came to.

    Attributes
    ----------
    number : from 1
    goal, budget, macs : MACs per image allowed at the end of all steps, allowed in this one, and of its expert
    params : parameters of the expert
    repaired, control : top-1 accuracy on tuning images after cut and repair, before the fine-tuning: of the criterion,
        and of random units under the same budget
    history : of the fine-tuning (see :func:`agflow.finetune`)
    """

    number: int
    goal: int
    budget: int
    macs: int
    params: int
    repaired: float
    control: float
    history: tuple[dict[str, float], ...] = ()


def prune_iteratively(
    model: nn.Module,
    loader: Iterable,
    tuning_loader: Iterable,
    *,
    macs: float | str,
    steps: int = 3,
    folder: str | os.PathLike | None = None,
    preprocessing: Preprocessing | None = None,
    calibrate_options: Mapping[str, Any] = _NONE,
    plan_options: Mapping[str, Any] = _NONE,
    prune_options: Mapping[str, Any] = _NONE,
    finetune_options: Mapping[str, Any] = _NONE,
    seed: int = 0,
) -> tuple[nn.Module, list[Step]]:
    """Shrink ``model`` to ``macs`` in ``steps`` steps, each on what the one before left: calibrate, plan, cut and repair, fine-tune.

    The budgets fall geometrically: every step takes the same share of the MACs that are left. ``model`` teaches every
    step and is left as it is. Before the fine-tuning, which takes most of the time, each cut is compared with one of
    random units under the same budget, repaired alike, on the first 2,048 tuning images; a warning tells when the
    random units do better.

    With ``folder``, the expert of step n is the expert folder ``step-n``, its record ``step-n.json``, and the fine-tuning
    under way keeps a checkpoint: the same call after a crash goes on from there, with the bits of an unbroken run.

    Parameters
    ----------
    loader : batches of (images, labels) for calibration and repair, gone through several times a step
    tuning_loader : sized iterable of the same, for the fine-tuning
    macs : budget per image at the end: a share of the model's (``0.35``) or an amount (``"350M"``)
    preprocessing : what the model's images need, kept with each expert
    calibrate_options, plan_options, prune_options, finetune_options : further arguments of :func:`agflow.calibrate`,
        :func:`agflow.plan`, :func:`agflow.prune` and :func:`agflow.finetune`, all but seed
    seed : of everything that is drawn; step n takes seed + n

    Returns
    -------
    the light model in evaluation mode, on the device of ``model``, and one record a step

    Raises
    ------
    InvalidValueError
        Fewer than one step, or a folder of another run; and as the four functions.
    BudgetError
        The budget cannot be reached.
    FileError, CorruptFileError
        The folder holds something else, cannot be read or written, or a file in it is damaged.
    """
    if steps < 1:
        raise InvalidValueError(f"steps is {steps}, expected at least 1")
    if Ranks.of_process().size > 1:
        raise InvalidValueError(
            "prune_iteratively works in one process, and torchrun started several: cut in one process and run finetune alone in several"
        )
    given = {
        "calibrate": calibrate_options,
        "plan": plan_options,
        "prune": prune_options,
        "finetune": finetune_options,
    }
    shelf = (
        None
        if folder is None
        else _StepCache(
            folder, model, {"macs": macs, "steps": steps, "seed": seed, **given}, preprocessing
        )
    )
    maker = _Maker(model, loader, tuning_loader, macs, steps, given, seed)
    light, records = model, []
    for number in range(1, steps + 1):
        tuned = shelf and shelf.find(number)
        if tuned is None:
            cut = shelf and shelf.find(number, cut=True)
            if cut is None:
                cut = maker.cut(light, number, records)
                if shelf:
                    shelf.keep(cut, number, cut=True)
            _warn(cut.record)
            tuned = maker.tune(cut, number, shelf and shelf.checkpoint(number))
            if shelf:
                shelf.keep(tuned, number)
        if shelf:
            shelf.clear(number)
        light = tuned.model.to(maker.device).eval()
        records.append(tuned.record)
    return light, records


@dataclass(frozen=True)
class _Made:
    model: nn.Module
    plan: Plan
    record: Step


class _Maker:
    """Does what a step does, the same whatever ran before in this process."""

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable,
        tuning_loader: Iterable,
        macs: float | str,
        steps: int,
        given: dict[str, Mapping],
        seed: int,
    ):
        self.model, self.loader, self.tuning_loader, self.macs, self.steps = (
            model,
            loader,
            tuning_loader,
            macs,
            steps,
        )
        self.given, self.seed = given, seed
        self.device, self.dense = next(model.parameters()).device, count_macs(model)
        self.generators = [
            (generator, generator.get_state())
            for each in (loader, tuning_loader)
            for generator in generators_of(each)
        ]

    def cut(self, light: nn.Module, number: int, records: list[Step]) -> _Made:
        """Cut and repair by the criterion, and by random units for comparison."""
        self._rewind()
        with seeded(self.seed + number, self.device):
            statistics = calibrate(
                light,
                self.loader,
                seed=self.seed,
                **self.given["calibrate"],
            )
            # The first step, on the whole model, finds out whether the goal can be reached, and what it is in MACs.
            goal = (
                records[0].goal
                if records
                else round(self._plan(statistics, self.macs).report["budget"])
            )
            budget = round(self.dense * (goal / self.dense) ** (number / self.steps))
            chosen, expert, repaired = self._expert(light, statistics, budget)
            *_, control = self._expert(light, statistics, budget, criterion="random")
        return _Made(
            expert,
            chosen,
            Step(number, goal, budget, count_macs(expert), count_params(expert), repaired, control),
        )

    def tune(self, made: _Made, number: int, checkpoint: pathlib.Path | None) -> _Made:
        self._rewind()
        given = {"distillation": Distillation(self.model), **self.given["finetune"]}
        every = given.pop("checkpoint_every", Checkpointing.every)
        history = finetune(
            made.model.to(self.device),
            self.tuning_loader,
            checkpointing=checkpoint and Checkpointing(checkpoint, every),
            seed=self.seed + number,
            **given,
        )
        return replace(made, record=replace(made.record, history=tuple(history)))

    def _expert(
        self, light: nn.Module, statistics: Statistics, budget: int, **changed
    ) -> tuple[Plan, nn.Module, float]:
        chosen = self._plan(statistics, budget, **changed)
        expert = prune(light, chosen, self.loader, **self.given["prune"])
        return (
            chosen,
            expert,
            evaluate(expert, _first_images(self.tuning_loader, CONTROL_IMAGES)).top1,
        )

    def _plan(self, statistics: Statistics, macs: float | str, **changed) -> Plan:
        return plan(statistics, macs=macs, seed=self.seed, **{**self.given["plan"], **changed})

    def _rewind(self) -> None:
        for generator, state in self.generators:
            generator.set_state(state)


class _StepCache:
    """A run's folder: run.json says what was asked; step n is an expert folder with its record, step-n and step-n.json, and
    before it is tuned step-n-cut, step-n-cut.json and step-n-checkpoint. A record is written last, when its expert is whole."""

    def __init__(
        self,
        folder: str | os.PathLike,
        model: nn.Module,
        asked: dict[str, Any],
        preprocessing: Preprocessing | None,
    ):
        self.folder, self.preprocessing = pathlib.Path(folder), preprocessing
        asked = json.loads(json.dumps({"model": model, **asked}, default=_as_json))
        if not (self.folder / "run.json").exists():
            if self.folder.exists() and (
                not self.folder.is_dir()
                or any(entry.name != ".run.unfinished" for entry in self.folder.iterdir())
            ):
                raise FileError(
                    f"{self.folder} exists and holds no run of prune_iteratively: choose another folder"
                )
            self._write("run", asked)
        found = self._read("run")
        for name, now in asked.items():
            if found.get(name) != now:
                raise InvalidValueError(
                    f"{self.folder} is of another run ({name}: {found.get(name)} then, {now} now): "
                    "repeat that one, or choose another folder"
                )

    def find(self, number: int, *, cut: bool = False) -> _Made | None:
        """The expert of a step, on the CPU; None when it has not come so far."""
        name = _name(number, cut)
        if not (self.folder / f"{name}.json").exists():
            return None
        try:
            content = self._read(name)
            record = Step(**{**content, "history": tuple(content["history"])})
        except (TypeError, KeyError) as error:
            raise CorruptFileError(
                f"{self.folder / name}.json is no record of a step ({error}): delete it to repeat the step"
            ) from error
        return _Made(
            load_expert(self.folder / name), Plan.load(self.folder / name / "plan.arrow"), record
        )

    def keep(self, made: _Made, number: int, *, cut: bool = False) -> None:
        name = _name(number, cut)
        save_expert(made.model, self.folder / name, made.plan, self.preprocessing)
        self._write(name, asdict(made.record))

    def clear(self, number: int) -> None:
        """Remove what a finished step was made from, and what killed processes left half-written."""
        (self.folder / f"{_name(number, True)}.json").unlink(missing_ok=True)
        self.checkpoint(number).unlink(missing_ok=True)
        for folder in (self.folder / _name(number, True), *self.folder.glob(".step-*.*")):
            shutil.rmtree(folder, ignore_errors=True)

    def checkpoint(self, number: int) -> pathlib.Path:
        return self.folder / f"step-{number}-checkpoint"

    def _write(self, name: str, content: dict) -> None:
        path, unfinished = self.folder / f"{name}.json", self.folder / f".{name}.unfinished"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with unfinished.open("w") as file:
                file.write(json.dumps(content, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except OSError as error:
            raise FileError(
                f"{path} was not written: {error.strerror}: choose a writable folder with space"
            ) from error

    def _read(self, name: str) -> dict:
        path = self.folder / f"{name}.json"
        try:
            return json.loads(path.read_text())
        except OSError as error:
            raise FileError(f"{path} cannot be read: {error.strerror}: check the path") from error
        except ValueError as error:
            raise CorruptFileError(
                f"{path} is damaged ({error}): delete it to repeat the step"
            ) from error


def _name(number: int, cut: bool) -> str:
    return f"step-{number}-cut" if cut else f"step-{number}"


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return digest_of(value) if isinstance(value, nn.Module) else repr(value)


def _first_images(loader: Iterable, images: int) -> Iterator:
    """Batches until they hold ``images`` images."""
    seen = 0
    for batch in loader:
        yield batch
        seen += len(batch[1])
        if seen >= images:
            return


def _warn(record: Step) -> None:
    if record.repaired < record.control:
        warnings.warn(
            f"step {record.number}: top-1 is {100 * record.repaired:.1f} % after cut and repair, below the {100 * record.control:.1f} % "
            "of random units under the same budget, so the criterion tells nothing here: calibrate on more images, take smaller steps "
            "or another criterion",
            stacklevel=3,
        )
