"""Pruning in several smaller steps instead of one large one, each step kept on disk."""

from __future__ import annotations

import os
import pathlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace

from torch import nn

from agflow._utils.defaults import default
from agflow._utils.devices import device_of
from agflow._utils.modes import with_gradients
from agflow._utils.ranks import Ranks
from agflow.calibration.calibration import calibrate
from agflow.calibration.statistics import Statistics
from agflow.data.batches import Batch, labelled_batches
from agflow.errors import InvalidValueError
from agflow.evaluation.accuracy import evaluate
from agflow.models import count_macs, count_params
from agflow.models.callables import unwrapped
from agflow.pruning.planning import Plan, plan
from agflow.pruning.pruner import prune
from agflow.recipes.run_folder import locked_folder
from agflow.recipes.step_cache import StepCache
from agflow.recipes.step_options import StepOptions
from agflow.recipes.steps import Step, StepExpert
from agflow.training.finetuning import finetune
from agflow.training.options import Checkpointing
from agflow.training.replay import generators_of, seeded

CONTROL_IMAGES = 2048


@with_gradients
def prune_iteratively(
    model: nn.Module,
    loader: Iterable,
    tuning_loader: Iterable,
    *,
    macs: float | str,
    steps: int = 3,
    options: StepOptions = StepOptions(),
    folder: str | os.PathLike | None = None,
    seed: int = default("common", "seed"),
) -> tuple[nn.Module, list[Step]]:
    """Prune ``model`` to ``macs`` in ``steps`` steps: calibrate, plan, prune, repair, fine-tune.

    Each step prunes the result of the step before. The budgets fall geometrically: every step
    removes the same share of the MACs that are left. ``model`` is the teacher of every step and is
    left as it is. Before the fine-tuning, which takes most of the time, each pruned model is
    compared on the first 2,048 tuning images with one that lacks random units under the same
    budget, repaired alike; a warning says when the random units do better.

    With ``folder``, the expert of step n is the expert folder ``step-n``, its record
    ``step-n.json``, and the fine-tuning under way keeps a checkpoint: the same call after a crash
    goes on from there, with the bits of an unbroken run.

    Parameters
    ----------
    loader : batches of (images [B, C, H, W], labels int64 [B]) for calibration and repair, iterated
        several times a step
    tuning_loader : sized iterable of the same, for the fine-tuning
    macs : budget per image after the last step: a share of the model's (``0.35``) or an amount
        (``"350M"``)
    options : how each step calibrates, plans, prunes and fine-tunes
    folder : where the steps are kept; None keeps nothing
    seed : of everything that is drawn; step n takes seed + n

    Returns
    -------
    the light model in evaluation mode, on the device of ``model``, and one record per step

    Raises
    ------
    InvalidValueError
        Fewer than one step, several processes, or a folder of another run; and as the functions
        that a step calls.
    BudgetError
        The budget cannot be reached.
    FileError, CorruptFileError
        The folder holds something else, cannot be read or written, or a file in it is damaged.

    Examples
    --------
    >>> import agflow, timm, torch
    >>> from agflow.recipes import StepOptions
    >>> model = timm.create_model(
    ...     "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=4
    ... )
    >>> batches = [(torch.randn(4, 3, 32, 32), torch.arange(4))]
    >>> light, records = agflow.prune_iteratively(
    ...     model, batches, batches, macs=0.5, steps=2, options=StepOptions(epochs=1)
    ... )
    >>> [record.macs <= record.budget for record in records]
    [True, True]
    """
    if steps < 1:
        raise InvalidValueError(f"steps is {steps}, expected at least 1")
    if Ranks.of_process().size > 1:
        raise InvalidValueError(
            "prune_iteratively works in one process, and torchrun started several: "
            "prune in one process and run finetune alone in several"
        )
    model = unwrapped(model)
    options = options.of_model(model)
    request = {"macs": macs, "steps": steps, "seed": seed}
    runner = _StepRunner(model, loader, tuning_loader, macs, steps, options, seed)
    if folder is None:
        return _all_steps(runner, None)
    with locked_folder(folder, "run folder"):
        return _all_steps(runner, StepCache(folder, model, request, options))


def _all_steps(runner: _StepRunner, cache: StepCache | None) -> tuple[nn.Module, list[Step]]:
    light, records = runner.model, []
    for number in range(1, runner.steps + 1):
        tuned = cache and cache.find(number, tuned=True)
        if tuned is None:
            pruned = cache and cache.find(number, tuned=False)
            if pruned is None:
                pruned = runner.prune(light, number, records)
                if cache:
                    cache.keep(pruned, tuned=False)
            _warn_of_control(pruned.record)
            tuned = runner.finetune(pruned, cache and cache.checkpoint(number))
            if cache:
                cache.keep(tuned, tuned=True)
        if cache:
            cache.clear(number)
        light = tuned.model.to(runner.device).eval()
        records.append(tuned.record)
    return light, records


class _StepRunner:
    """Prunes and fine-tunes in a step, with the same bits whatever ran before in this process.

    Parameters
    ----------
    model : the dense one
    macs : budget per image after the last of ``steps`` steps
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Iterable,
        tuning_loader: Iterable,
        macs: float | str,
        steps: int,
        options: StepOptions,
        seed: int,
    ):
        self.model, self.loader, self.tuning_loader = model, loader, tuning_loader
        self.macs, self.steps, self.options, self.seed = macs, steps, options, seed
        self.device, self.dense_macs = device_of(model), count_macs(model)
        self.generators = [
            (generator, generator.get_state())
            for each in (loader, tuning_loader)
            for generator in generators_of(each)
        ]

    def prune(self, light: nn.Module, number: int, records: list[Step]) -> StepExpert:
        """Prune and repair ``light`` by the criterion, and by random units for comparison."""
        self._rewind()
        with seeded(self.seed + number, self.device):
            statistics = self._calibrate(light)
            # The first step, on the whole model, finds out whether the goal can be reached, and
            # what it is in MACs.
            if records:
                goal = records[0].goal
            else:
                report = self._plan(statistics, self.macs).report
                assert report is not None  # only a plan that was loaded has none
                goal = round(report["budget"])
            share = (goal / self.dense_macs) ** (number / self.steps)
            # Large units may have gone below a later budget already.
            budget = min(round(self.dense_macs * share), count_macs(light))
            chosen = self._plan(statistics, budget)
            images = list(_first_images(self.tuning_loader, CONTROL_IMAGES))
            expert, repaired = self._expert(light, chosen, images)
            random = self._plan(statistics, budget, criterion="random")
            _, control = self._expert(light, random, images)
        record = Step(
            number, goal, budget, count_macs(expert), count_params(expert), repaired, control
        )
        return StepExpert(expert, chosen, record)

    def finetune(self, pruned: StepExpert, checkpoint: pathlib.Path | None) -> StepExpert:
        """Fine-tune the expert of a step in place; ``checkpoint`` keeps the run."""
        self._rewind()
        options, distillation = self.options, self.options.distillation
        if distillation is not None and distillation.teacher is None:
            distillation = replace(distillation, teacher=self.model)
        history = finetune(
            pruned.model.to(self.device),
            self.tuning_loader,
            epochs=options.epochs,
            lr=options.lr,
            distillation=distillation,
            checkpointing=checkpoint and Checkpointing(checkpoint, options.checkpoint_every),
            options=options.training,
            seed=self.seed + pruned.record.number,
        )
        return replace(pruned, record=replace(pruned.record, history=tuple(history)))

    def _calibrate(self, light: nn.Module) -> Statistics:
        options = self.options
        return calibrate(
            light,
            self.loader,
            batches=options.batches,
            groups=options.groups,
            loss=options.loss,
            image_size=options.image_size,
            weight_gradients=options.weight_gradients,
            options=replace(options.calibration, seed=self.seed),
        )

    def _plan(
        self,
        statistics: Statistics,
        macs: float | str,
        criterion: str | None = None,
    ) -> Plan:
        return plan(
            statistics,
            macs=macs,
            criterion=criterion or self.options.criterion,
            allocation=self.options.allocation,
            seed=self.seed,
        )

    def _expert(
        self, light: nn.Module, chosen: Plan, images: list[Batch]
    ) -> tuple[nn.Module, float]:
        """``light`` pruned and repaired, and its top-1 accuracy on ``images``."""
        expert = prune(light, chosen, self.loader, compensate=self.options.compensate)
        return expert, evaluate(expert, images).top1

    def _rewind(self) -> None:
        for generator, state in self.generators:
            generator.set_state(state)


def _first_images(loader: Iterable, images: int) -> Iterator[Batch]:
    """Batches until they hold ``images`` images."""
    seen = 0
    for batch in labelled_batches(loader):
        yield batch
        seen += len(batch.labels)
        if seen >= images:
            return


def _warn_of_control(record: Step) -> None:
    if record.repaired < record.control:
        warnings.warn(
            f"step {record.number}: top-1 is {100 * record.repaired:.1f} % after pruning and "
            f"repair, below the {100 * record.control:.1f} % of random units under the same "
            "budget, so the criterion does not separate units here: calibrate on more images, "
            "take smaller steps or another criterion",
            stacklevel=4,  # the caller of prune_iteratively
        )
