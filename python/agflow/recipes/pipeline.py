"""The whole road on one model: calibrate, plan, cut, repair, fine-tune, set the threshold, judge the cascade, report."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from agflow.calibration.calibration import calibrate
from agflow.calibration.statistics import Statistics
from agflow.cascade.cascade import Cascade
from agflow.cascade.curves import curve
from agflow.cascade.ledger import Costs, Ledger
from agflow.cascade.predictions import Predictions, join_predictions
from agflow.cascade.priors import escalations
from agflow.cascade.router import calibrate_router
from agflow.data import datasets as data
from agflow.data.augmentation import shifting_batch
from agflow.data.datasets import load_dataset
from agflow.data.leakage import sketch_images
from agflow.errors import EmptyError, FileError, InvalidValueError, UnsupportedModelError
from agflow.evaluation.accuracy import Accuracy, accuracy, evaluate, logits, restrict, top1
from agflow.evaluation.timing import first_images, race
from agflow.models.expert import save_expert
from agflow.models.load import load_model
from agflow.pruning.allocation import Allocation
from agflow.pruning.planning import UNIFORM, Plan, plan
from agflow.pruning.pruner import prune
from agflow.pruning.scoring import needs_weight_gradients, score
from agflow.recipes.report import write_report
from agflow.recipes.results import CascadeResult, RunOptions, RunResult, Stages
from agflow.training.finetuning import finetune, last_block
from agflow.training.options import Distillation

CONTROL = "random"
THRESHOLD_SHARE = 0.4
DISTILL = 0.9  # the teacher's share of the loss
FEATURES = 4.0  # weight of the error of the last block's tokens
TIMED_IMAGES = 256
TIMED_BATCH = 32


@dataclass(frozen=True)
class Splits:
    """Which image decides what: ``tune`` trains (and its part ``calibration`` measures and repairs), ``threshold`` sets
    the threshold, ``judge`` only judges."""

    calibration: Dataset
    tune: Dataset
    threshold: Dataset
    judge: Dataset


def run(options: RunOptions, say: Callable[[str], None] = print) -> RunResult:
    """Drive one model down the whole road and fill the run folder.

    Writes statistics.arrow, plan.arrow, light/ (expert folder), predictions-threshold.arrow, predictions.arrow,
    curve.arrow, router.json, report.md, report.json and five pictures into ``options.output``.

    Raises
    ------
    AgflowError
        Any step refuses its input; the message says which and what to do. Files written before stay.
    """
    folder = _run_folder(options.output)
    heavy, preprocessing, name = load_model(options.model, options.weights)
    heavy.eval()
    splits = _split(options, preprocessing, heavy)
    images = {
        "calibration": len(splits.calibration),
        "fine-tuning": len(splits.tune),
        "threshold": len(splits.threshold),
        "judging": len(splits.judge),
    }
    say(f"{name}: " + ", ".join(f"{count} {use}" for use, count in images.items()) + " images")

    say("1/6 calibrate: activations and gradients to the Go core")
    statistics = calibrate(
        heavy,
        _loader(splits.calibration, options),
        batches=options.batches,
        groups=options.groups,
        seed=options.seed,
        weight_gradients=needs_weight_gradients(options.criterion),
    )
    statistics.save(folder / "statistics.arrow")

    say("2/6 plan")
    plans = _plans(statistics, options)
    chosen = plans[options.criterion]
    chosen.save(folder / "plan.arrow")
    say(
        f"    {chosen.macs / 1e6:.1f} M of {chosen.model_macs / 1e6:.1f} M MACs ({chosen.macs / chosen.model_macs:.3f}x)"
    )

    say("3/6 cut, repair, fine-tune: the criterion and its control side by side")
    heavy_NK, labels = logits(heavy, _loader(splits.judge, options), description="heavy expert")
    dense = accuracy(heavy_NK, labels)
    light, stages = _side_by_side(heavy, plans, splits, options, dense, say)
    save_expert(
        light,
        folder / "light",
        chosen,
        preprocessing=preprocessing,
        tuning=sketch_images(_loader(splits.tune, options)),
    )

    say("4/6 set the threshold on held-out images")
    costs = Costs.of(light, heavy)
    light_NK, _ = logits(light, _loader(splits.judge, options), description="light expert")
    held_out, judged = (
        _both(light, heavy, _loader(splits.threshold, options)),
        (light_NK, heavy_NK, labels),
    )
    result, predictions = _judge(held_out, judged, costs, options)
    result.router.save(folder / "router.json")
    for file, table in (
        ("predictions-threshold", predictions[0]),
        ("predictions", predictions[1]),
        ("curve", result.curve),
    ):
        table.save(folder / f"{file}.arrow")

    say("5/6 run the cascade itself")
    cascade = Cascade(light, heavy, result.router)
    measured = evaluate(cascade, _loader(splits.judge, options)).top1
    result = replace(
        result, ledger=cascade.ledger, cascade=measured
    )  # of the running module, not of the logs
    x = first_images(splits.judge, TIMED_IMAGES)
    timings = race({"heavy": heavy, "light": light, "cascade": cascade}, x, batch=TIMED_BATCH)

    say("6/6 report")
    outcome = RunResult(
        options=options,
        name=name,
        judged=splits.judge,
        predictions=predictions[1],
        classes=heavy_NK.shape[1],
        images=images,
        fingerprint=statistics.metadata["agflow.data"],
        dense=dense,
        stages=stages,
        scores=score(statistics, options.criterion, seed=options.seed),
        plan=chosen,
        cascade=result,
        cascade_among_present=_among_present(held_out, judged, costs, options),
        timings=timings,
    )
    write_report(outcome, folder)
    return outcome


def _loader(dataset: Dataset, options: RunOptions) -> DataLoader:
    return DataLoader(dataset, batch_size=options.batch_size)


def _plans(statistics: Statistics, options: RunOptions) -> dict[str, Plan]:
    """The plan of the criterion and of the control, under the same budget, each layer giving the same share.

    Shared widths and the fold in sequence start far higher, but fine-tuned on the example they end no higher.
    """
    names = dict.fromkeys([options.criterion, CONTROL])
    return {
        name: plan(
            statistics,
            criterion=name,
            seed=options.seed,
            pruning_ratio=options.pruning_ratio,
            macs=options.macs,
            allocation=Allocation(
                widths=UNIFORM,
                round_to=options.round_to,
                groups=options.groups,
                ignored_layers=options.ignored_layers,
            ),
        )
        for name in names
    }


def _side_by_side(
    heavy: nn.Module,
    plans: dict[str, Plan],
    splits: Splits,
    options: RunOptions,
    dense: Accuracy,
    say: Callable[[str], None],
) -> tuple[nn.Module, dict[str, Stages]]:
    """The light expert of the criterion, and the accuracies of it and its control after every step."""
    experts, stages = {}, {}
    for name, plan_ in plans.items():
        experts[name], stages[name] = _make_expert(heavy, plan_, splits, options)
        say(
            f"    {name:<12} cut {_percent(stages[name].cut)}  repaired {_percent(stages[name].repaired)}  "
            f"fine-tuned {_percent(stages[name].tuned)}  (dense {_percent(dense)})"
        )
    if stages[options.criterion].tuned.top1 < stages[CONTROL].tuned.top1:
        say(f"    warning: {options.criterion} ends below the {CONTROL} control here")
    return experts[options.criterion], stages


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.top1:5.1f} %"


def _run_folder(path: str) -> pathlib.Path:
    """Make the run folder; an earlier run is overwritten, anything else is left alone."""
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = any(folder.iterdir()) and not (folder / "statistics.arrow").exists()
    except OSError as error:
        raise FileError(
            f"run folder {folder} cannot be made: {error.strerror}: choose another --output"
        ) from error
    if foreign:
        raise FileError(
            f"folder {folder} holds files that no agflow run has written: choose an empty --output"
        )
    return folder


def _split(options: RunOptions, preprocessing: data.Preprocessing, heavy: nn.Module) -> Splits:
    """Shuffle the data once by the seed; the last share sets the threshold and is used for nothing else."""
    load = lambda spec, limit: load_dataset(
        spec,
        preprocessing=preprocessing,
        label=options.label,
        limit=limit,
        seed=options.seed,
        classes=heavy.num_classes,
    )
    if options.eval == options.data:
        raise InvalidValueError(
            f"data and eval are both {options.data}: judge on images that nothing else has seen"
        )
    source = load(options.data, options.limit)
    order = torch.randperm(
        len(source), generator=torch.Generator().manual_seed(options.seed)
    ).tolist()
    tuned = round(len(order) * (1 - THRESHOLD_SHARE))
    if not 0 < tuned < len(order):
        raise EmptyError(
            f"{options.data} has {len(order)} images, expected at least 2: some tune the light expert, others set the threshold"
        )
    calibrating = min(tuned, options.batches * options.batch_size)
    return Splits(
        calibration=Subset(source, order[:calibrating]),
        tune=Subset(source, order[:tuned]),
        threshold=Subset(source, order[tuned:]),
        judge=load(options.eval, options.eval_limit),
    )


def _make_expert(
    heavy: nn.Module, plan_: Plan, splits: Splits, options: RunOptions
) -> tuple[nn.Module, Stages]:
    judge = lambda model: evaluate(model, _loader(splits.judge, options))
    cut = judge(prune(heavy, plan_, compensate="none"))
    light = prune(heavy, plan_, _loader(splits.calibration, options), compensate=options.compensate)
    repaired = judge(light)
    if options.epochs == 0:
        return light, Stages(cut, repaired, repaired)
    shuffled = DataLoader(
        splits.tune,
        batch_size=options.batch_size,
        shuffle=True,
        collate_fn=shifting_batch,
        generator=torch.Generator().manual_seed(options.seed),
    )
    finetune(
        light,
        shuffled,
        epochs=options.epochs,
        lr=options.lr,
        distillation=Distillation(heavy, share=DISTILL, features=_features(light, plan_)),
        seed=options.seed,
    )
    return light, Stages(cut, repaired, judge(light))


def _features(light: nn.Module, plan_: Plan) -> float:
    """FEATURES where the light expert's tokens can be held against the heavy one's: all residual channels are there and the last block is known."""
    if any(layer.group == "embed" and layer.kept < layer.units for layer in plan_.planned):
        return 0.0
    try:
        last_block(light)
    except UnsupportedModelError:
        return 0.0
    return FEATURES


def _both(light, heavy, batches) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of both experts and the labels."""
    light_NK, labels = logits(light, batches, description="light expert")
    return light_NK, logits(heavy, batches, description="heavy expert")[0], labels


def _judge(
    held_out, judged, costs, options
) -> tuple[CascadeResult, tuple[Predictions, Predictions]]:
    """Set the threshold on ``held_out`` and read its result off ``judged``; both are (light, heavy, labels)."""
    calibrating = join_predictions(*held_out, costs)
    judging = join_predictions(*judged, costs, temperature=calibrating.temperature)
    router = calibrate_router(
        calibrating, tolerance=options.tolerance, confidence=options.confidence
    )
    escalated = escalations(
        judged[0], router.threshold, prior=router.prior, temperature=router.temperature
    )
    cascade = top1(judged[0].index_copy(0, escalated, judged[1][escalated]), judged[2])
    ledger = Ledger.of(costs, len(judging), len(escalated))
    light, heavy = judging.light_accuracy, judging.heavy_accuracy
    random = (1 - ledger.escalation) * light + ledger.escalation * heavy
    return CascadeResult(router, ledger, light, heavy, cascade, random, curve(judging)), (
        calibrating,
        judging,
    )


def _among_present(held_out, judged, costs, options) -> CascadeResult | None:
    """The same with both experts told which classes occur; None when all of them do."""
    present = torch.cat([held_out[2], judged[2]]).unique()
    if len(present) == held_out[0].shape[1]:
        return None
    told = lambda light, heavy, labels: (
        restrict(light, labels, present)[0],
        *restrict(heavy, labels, present),
    )
    return _judge(told(*held_out), told(*judged), costs, options)[0]
