"""The whole pipeline on one model, from calibration to the report of a routed cascade."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import safetensors.torch
import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.files import atomic_file
from agflow._utils.folders import files_of
from agflow._utils.progress import logged_progress
from agflow.calibration.calibration import calibrate
from agflow.calibration.options import CalibrationOptions
from agflow.calibration.statistics import Statistics
from agflow.cascade.cascade import Cascade
from agflow.cascade.cascade_evaluation import evaluate_cascade
from agflow.cascade.expert_costs import MEASURED as MEASURED_COSTS, costs_on_images
from agflow.cascade.file_names import CASCADE_FILE, HEAVY_FOLDER, LIGHT_FOLDER
from agflow.cascade.folder import seal_cascade
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import Predictions
from agflow.cascade.router import Router
from agflow.data.batches import image_batches
from agflow.data.leakage import sketch_images
from agflow.evaluation.accuracy import Accuracy, accuracy, logits
from agflow.evaluation.timing import first_images, time_models
from agflow.models.expert import expert_tuning, load_expert, save_expert
from agflow.models.fitting import request_check
from agflow.models.load import image_options, load_model
from agflow.pruning.allocation import Allocation
from agflow.pruning.planning import Plan, plan
from agflow.pruning.scoring import needs_weight_gradients, score
from agflow.recipes.light_experts import CONTROL_EPOCHS, make_expert
from agflow.recipes.report import write_report
from agflow.recipes.results import RunOptions, RunResult, Stages
from agflow.recipes.routing import Answers, route, route_among_present
from agflow.recipes.run_files import (
    read_cascade_result,
    read_stages,
    read_timings,
    write_evaluation,
    write_stages,
    write_timings,
)
from agflow.recipes.run_folder import (
    PICTURES,
    REPORTS,
    STEPS_FOLDER,
    RunFolder,
    Say,
    run_folder,
)
from agflow.recipes.run_identity import RunIdentity
from agflow.recipes.run_parts import RunParts
from agflow.recipes.splits import split_images

CONTROL = "random"
WIDTHS = default("run", "widths")
TIMED_IMAGES = 256
TIMED_BATCH = 32

STATISTICS, PLAN, ROUTER, CURVE = "statistics.arrow", "plan.arrow", "router.json", "curve.arrow"
CALIBRATING, TESTED = "predictions-threshold.arrow", "predictions.arrow"
HEAVY_LOGITS = f"{STEPS_FOLDER}/heavy.safetensors"
LIGHT_STAGES, CONTROL_STAGES = (f"{STEPS_FOLDER}/{role}.json" for role in ("light", "control"))
MEASURED, TIMINGS = (f"{STEPS_FOLDER}/{name}.json" for name in ("measured", "timings"))
# The same over the classes that occur, where not all do.
PRESENT = f"{STEPS_FOLDER}/present"


def run(options: RunOptions, say: Say = print) -> RunResult:
    """Calibrate, plan, prune, repair and fine-tune a model, route it as a cascade and report.

    Fills ``options.output``, a cascade folder that :func:`agflow.load` and ``agflow serve`` take
    (light/, heavy/, router.json, cascade.json), with statistics.arrow, plan.arrow,
    predictions-threshold.arrow, predictions.arrow (of the test images), curve.arrow, five pictures,
    report.md and report.json beside it, and what else the result is made of in its steps/. Its
    ``run.json`` has the run's id, a digest of the options and of the contents of model and data,
    and the SHA-256 of every file.

    The folder is this run's: a second one is refused meanwhile. After a kill the same call goes on
    from the last finished step, and inside of a fine-tuning from its checkpoint, and ends with the
    bytes of an unbroken run (on the CPU with as many threads), all but measured times and what
    reports them; times that were measured stay. Where the run is finished, nothing is computed
    again. The files of another run are removed; those in the default folder only with
    ``options.force``.

    Parameters
    ----------
    say : receives a line of text at every step and, where there is no terminal, after every epoch

    Raises
    ------
    AgflowError
        Any step refuses its input; the message says which and what to do. Files that this run has
        written stay, and those of an older one until this one's inputs are loaded.

    Examples
    --------
    >>> import agflow, tempfile
    >>> small = {"macs": "0.5", "epochs": 0, "batches": 1, "limit": 100, "eval_limit": 50}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     options = agflow.recipes.RunOptions(output=f"{folder}/small-run", **small)
    ...     result = agflow.recipes.run(options, say=lambda line: None)
    >>> sorted(result.stages), result.images["test"]
    (['agf', 'random'], 50)
    """
    with (
        run_folder(options.output, say) as folder,
        options.computing.precision(),
        logged_progress(say),
    ):
        parts = _parts(options)
        splits = parts.splits
        data = {"data": splits.source, "eval": splits.test}
        identity = RunIdentity.of("run", options, parts.heavy, parts.preprocessing, data)
        replace_others = options.force or options.output != RunOptions.output
        if folder.begin(identity, force=options.force, replace=replace_others):
            say(
                f"{options.output} holds this run already ({folder.run[:12]}), so nothing is "
                "computed again: --force repeats it"
            )
            return _result(parts, folder.path)
        counts = ", ".join(f"{count} {use}" for use, count in splits.counts.items())
        say(f"{parts.name}: {counts} images")
        _make(parts, folder, say)
        result = _result(parts, folder.path)
        folder.step(
            "report",
            "8/8 report",
            (*PICTURES, *REPORTS),
            lambda _: write_report(result, folder.path, folder.run),
        )
        folder.seal()
    return result


def _parts(options: RunOptions) -> RunParts:
    check = request_check(options.groups, options.macs)
    heavy, preprocessing, name = load_model(
        options.model, options.weights, check=check, **image_options(vars(options))
    )
    splits = split_images(options, preprocessing, options.computing.move(heavy))
    return RunParts(options, name, heavy, preprocessing, splits)


def _make(parts: RunParts, folder: RunFolder, say: Say) -> None:
    """The steps up to the report; each reads what it needs from the files of earlier ones."""
    path, criterion = folder.path, parts.options.criterion
    folder.step(
        "calibrate",
        "1/8 calibrate: activations and gradients to the Go core",
        (STATISTICS,),
        lambda _: _calibrate(parts).save(path / STATISTICS),
    )
    folder.step(
        "plan", "2/8 plan", (PLAN,), lambda _: _plan(parts, path, criterion).save(path / PLAN)
    )
    say(f"    {_cost(Plan.load(path / PLAN))}")
    folder.step(
        "heavy", "3/8 evaluate the heavy expert", (HEAVY_LOGITS,), lambda _: _heavy(parts, path)
    )
    say(f"    dense {_percent(_dense(path))}")
    folder.step(
        "light",
        f"4/8 prune, repair, fine-tune: {criterion}",
        (f"{LIGHT_FOLDER}/", LIGHT_STAGES),
        lambda own: _light(parts, folder, own),
    )
    say(f"    {_stages_text(read_stages(path / LIGHT_STAGES))}")
    if criterion != CONTROL:
        folder.step(
            "control",
            f"5/8 the same for the control, {CONTROL}",
            (CONTROL_STAGES,),
            lambda own: _control(parts, folder, own),
        )
        say(f"    {_stages_text(read_stages(path / CONTROL_STAGES))}")
        _warn_of_control(path, criterion, say)
    folder.step(
        "route",
        "6/8 calibrate the threshold on held-out images",
        (ROUTER, CALIBRATING, TESTED, CURVE, f"{PRESENT}/"),
        lambda _: _route(parts, path),
    )
    folder.step(
        "save", "", (f"{HEAVY_FOLDER}/", CASCADE_FILE), lambda _: _save_cascade(parts, path)
    )
    folder.step(
        "cascade",
        "7/8 run the cascade itself",
        (MEASURED, TIMINGS),
        lambda _: _cascade(parts, path),
    )


def _calibrate(parts: RunParts) -> Statistics:
    options = parts.options
    return calibrate(
        parts.heavy,
        parts.loader(parts.splits.calibration),
        batches=options.batches,
        groups=options.groups,
        loss=options.loss,
        weight_gradients=needs_weight_gradients(options.criterion),
        options=CalibrationOptions(seed=options.seed),
    )


def _plan(parts: RunParts, path: pathlib.Path, criterion: str) -> Plan:
    """The plan of a criterion, with uniform widths.

    Shared widths and sequential reconstruction start far higher, but fine-tuned on the example they
    end no higher.
    """
    options = parts.options
    allocation = Allocation(
        widths=WIDTHS,
        round_to=options.round_to,
        groups=options.groups,
        ignored_layers=options.ignored_layers,
    )
    return plan(
        Statistics.load(path / STATISTICS),
        macs=options.macs,
        pruning_ratio=options.pruning_ratio,
        criterion=criterion,
        allocation=allocation,
        seed=options.seed,
    )


def _heavy(parts: RunParts, path: pathlib.Path) -> None:
    heavy_NK, labels_N = logits(
        parts.heavy, parts.loader(parts.splits.test), description="heavy expert"
    )
    with atomic_file(path / HEAVY_LOGITS, "logits") as made:
        safetensors.torch.save_file({"logits": heavy_NK, "labels": labels_N}, made)


def _light(parts: RunParts, folder: RunFolder, own: pathlib.Path) -> None:
    chosen = Plan.load(folder.path / PLAN)
    light, stages = make_expert(parts, chosen, folder, own, epochs=parts.options.epochs)
    sketch = sketch_images(parts.loader(parts.splits.tune))
    save_expert(light, folder.path / LIGHT_FOLDER, chosen, parts.preprocessing, tuning=sketch)
    write_stages(folder.path / LIGHT_STAGES, stages)


def _control(parts: RunParts, folder: RunFolder, own: pathlib.Path) -> None:
    plan_, epochs = _plan(parts, folder.path, CONTROL), min(parts.options.epochs, CONTROL_EPOCHS)
    _, stages = make_expert(parts, plan_, folder, own, epochs=epochs)
    write_stages(folder.path / CONTROL_STAGES, stages)


def _route(parts: RunParts, path: pathlib.Path) -> None:
    light = _load_light(parts, path)
    costs = _costs(parts, light)
    heavy_NK, labels_N = _heavy_logits(path)
    light_NK, _ = logits(light, parts.loader(parts.splits.test), description="light expert")
    tested = Answers(light_NK, heavy_NK, labels_N)
    held_out = Answers.of(light, parts.heavy, parts.loader(parts.splits.threshold))
    result, calibrating, predictions = route(held_out, tested, costs, parts.options)
    calibrating.save(path / CALIBRATING)
    predictions.save(path / TESTED)
    result.router.save(path / ROUTER)
    result.curve.save(path / CURVE)
    if among_present := route_among_present(held_out, tested, costs, parts.options):
        figures, router, curve = _present(path)
        figures.parent.mkdir(exist_ok=True)
        write_evaluation(figures, among_present.evaluation)
        among_present.router.save(router)
        among_present.curve.save(curve)


def _costs(parts: RunParts, light: nn.Module) -> CascadeCosts:
    """MACs, or milliseconds by the first batch of the images that set the threshold."""
    if parts.options.costs != MEASURED_COSTS:
        return CascadeCosts.of(light, parts.heavy)
    images = next(image_batches(parts.loader(parts.splits.threshold)))
    images = images.to(parts.options.device)
    return costs_on_images(light, parts.heavy, images, measured=True)


def _save_cascade(parts: RunParts, path: pathlib.Path) -> None:
    """Make the folder a cascade's by what it lacks: the heavy expert and cascade.json."""
    about = {"preprocessing": parts.preprocessing, "tuning": expert_tuning(path / LIGHT_FOLDER)}
    save_expert(parts.heavy, path / HEAVY_FOLDER, **about)
    cascade = Cascade(_load_light(parts, path), parts.heavy, Router.load(path / ROUTER))
    experts = [
        f"{role}/{file}" for role in (LIGHT_FOLDER, HEAVY_FOLDER) for file in files_of(path / role)
    ]
    seal_cascade(cascade, path, [*experts, ROUTER, CALIBRATING])


def _cascade(parts: RunParts, path: pathlib.Path) -> None:
    """Evaluate the running module; images a second."""
    light = _load_light(parts, path)
    cascade = Cascade(light, parts.heavy, Router.load(path / ROUTER))
    predictions = Predictions.load(path / TESTED)
    evaluation = evaluate_cascade(cascade, parts.loader(parts.splits.test), predictions)
    write_evaluation(path / MEASURED, evaluation)
    x = first_images(parts.splits.test, TIMED_IMAGES).to(parts.options.device)
    contenders = {"heavy": parts.heavy, "light": light, "cascade": cascade}
    write_timings(path / TIMINGS, time_models(contenders, x, batch=TIMED_BATCH))


def _result(parts: RunParts, path: pathlib.Path) -> RunResult:
    """The result of a run, from the files of its steps."""
    options, statistics = parts.options, Statistics.load(path / STATISTICS)
    stages = {options.criterion: read_stages(path / LIGHT_STAGES)}
    if options.criterion != CONTROL:
        stages[CONTROL] = read_stages(path / CONTROL_STAGES)
    present = _present(path)
    return RunResult(
        options=replace(options, force=False),  # it decided nothing
        name=parts.name,
        classes=_heavy_logits(path)[0].shape[1],
        images=parts.splits.counts,
        fingerprint=statistics.metadata["agflow.data"],
        dense=_dense(path),
        stages=stages,
        scores=score(statistics, options.criterion, seed=options.seed),
        plan=Plan.load(path / PLAN),
        test=parts.splits.test,
        predictions=Predictions.load(path / TESTED),
        cascade=read_cascade_result(path / MEASURED, path / ROUTER, path / CURVE),
        cascade_among_present=read_cascade_result(*present) if present[0].exists() else None,
        timings=read_timings(path / TIMINGS),
    )


def _present(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path, pathlib.Path]:
    """Figures, router and curve of the cascade among the classes that occur."""
    folder = path / PRESENT
    return folder / "figures.json", folder / ROUTER, folder / CURVE


def _load_light(parts: RunParts, path: pathlib.Path) -> nn.Module:
    return parts.options.computing.move(load_expert(path / LIGHT_FOLDER))


def _heavy_logits(path: pathlib.Path) -> tuple[torch.Tensor, torch.Tensor]:
    """The heavy expert's logits of the test images, float32 [N, K], and their labels [N]."""
    tensors = safetensors.torch.load_file(path / HEAVY_LOGITS)
    return tensors["logits"], tensors["labels"]


def _dense(path: pathlib.Path) -> Accuracy:
    return accuracy(*_heavy_logits(path))


def _warn_of_control(path: pathlib.Path, criterion: str, say: Say) -> None:
    light, control = (read_stages(path / file) for file in (LIGHT_STAGES, CONTROL_STAGES))
    if light.tuned.top1 < control.tuned.top1:
        say(f"    warning: {criterion} is below the {CONTROL} control after {light.epochs} epochs")


def _cost(chosen: Plan) -> str:
    macs, dense_macs = chosen.macs, chosen.model_macs
    return f"{macs / 1e6:.1f} M of {dense_macs / 1e6:.1f} M MACs ({macs / dense_macs:.3f}x)"


def _stages_text(stages: Stages) -> str:
    return (
        f"pruned {_percent(stages.cut)}  repaired {_percent(stages.repaired)}  "
        f"fine-tuned {_percent(stages.tuned)} after {stages.epochs} epochs"
    )


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.top1:5.1f} %"
