"""The whole road on one model: calibrate, plan, cut, repair, fine-tune, set the threshold, judge the cascade, report."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from agflow import data, routing
from agflow.calibration import calibrate
from agflow.cascade import Cascade
from agflow.errors import EmptyError, FileError
from agflow.evaluation import Accuracy, Timing, accuracy, evaluate, logits, race, restrict
from agflow.experts import save_expert
from agflow.finetuning import finetune
from agflow.planning import Plan, Scores, plan, score
from agflow.report import write_report
from agflow.routing import Costs, Curve, Ledger, Predictions, Router
from agflow.surgery import prune

CONTROLS = ("magnitude", "random")
THRESHOLD_SHARE = 0.4
TIMED_IMAGES = 256
TIMED_BATCH = 32


@dataclass(frozen=True)
class RunOptions:
    """Options of :func:`run`; the command's flags have the same names."""

    model: str = "example"
    weights: str | None = None
    data: str = "example:train"
    eval: str = "example:test"
    output: str = "agflow-run"
    macs: str | None = None
    pruning_ratio: float | None = None
    criterion: str = "agf"
    round_to: int = 8
    groups: tuple[str, ...] = ()
    ignored_layers: tuple[str, ...] = ()
    compensate: str = "ridge"
    batches: int = 16
    batch_size: int = 64
    epochs: int = 3
    limit: int | None = None
    eval_limit: int | None = None
    tolerance: float = 0.005
    confidence: float = 0.95
    seed: int = 0
    label: str | None = None


@dataclass(frozen=True)
class Splits:
    """Which image decides what: ``tune`` repairs and trains, ``threshold`` sets the threshold, ``judge`` only judges."""

    tune: Dataset
    threshold: Dataset
    judge: Dataset


@dataclass(frozen=True)
class Stages:
    """Accuracy of one criterion's expert after each step, under the same budget and the same images."""

    cut: Accuracy
    repaired: Accuracy
    tuned: Accuracy


@dataclass(frozen=True)
class CascadeResult:
    """The cascade on images that chose neither weights nor threshold, over one set of classes."""

    router: Router
    ledger: Ledger
    light: float
    heavy: float
    cascade: float
    random: float
    curve: Curve = field(repr=False)


@dataclass(frozen=True)
class RunResult:
    """Everything a report needs."""

    options: RunOptions
    name: str
    classes: int
    images: dict[str, int]
    fingerprint: str
    dense: Accuracy
    stages: dict[str, Stages]
    scores: Scores = field(repr=False)
    plan: Plan = field(repr=False)
    cascade: CascadeResult
    cascade_among_present: CascadeResult | None
    timings: dict[str, Timing]


def run(options: RunOptions, say: Callable[[str], None] = print) -> RunResult:
    """Drive one model down the whole road and fill the run folder.

    Writes statistics.arrow, plan.arrow, light/ (expert folder), predictions-threshold.arrow, predictions.arrow,
    curve.arrow, router.json, report.md, report.json and three pictures into ``options.output``.

    Raises
    ------
    AgflowError
        Any step refuses its input; the message says which and what to do. Files written before stay.
    """
    folder = _run_folder(options.output)
    heavy, preprocessing, name = data.model_from(options.model, options.weights)
    heavy.eval()
    splits = _split(options, preprocessing, heavy)
    loader = lambda dataset: DataLoader(dataset, batch_size=options.batch_size)
    calibration = _first(splits.tune, options.batches * options.batch_size)
    images = {"calibration": len(calibration), "fine-tuning": len(splits.tune), "threshold": len(splits.threshold),
              "judging": len(splits.judge)}
    say(f"{name}: " + ", ".join(f"{count} {use}" for use, count in images.items()) + " images")

    say("1/6 calibrate: activations and gradients to the Go core")
    statistics = calibrate(heavy, loader(calibration), batches=options.batches, seed=options.seed)
    statistics.save(folder / "statistics.arrow")

    say("2/6 plan")
    budget = {"pruning_ratio": options.pruning_ratio, "macs": options.macs}
    shape = {"round_to": options.round_to, "groups": options.groups, "ignored_layers": options.ignored_layers}
    names = list(dict.fromkeys([options.criterion, *CONTROLS]))
    plans = {each: plan(statistics, criterion=each, seed=options.seed, **budget, **shape) for each in names}
    chosen = plans[options.criterion]
    chosen.save(folder / "plan.arrow")
    say(f"    {chosen.macs / 1e6:.1f} M of {chosen.model_macs / 1e6:.1f} M MACs ({chosen.macs / chosen.model_macs:.3f}x)")

    say("3/6 cut, repair, fine-tune: the criterion and its controls side by side")
    heavy_judged = logits(heavy, loader(splits.judge), description="heavy expert")
    dense = accuracy(*heavy_judged)
    experts, stages = {}, {}
    for each in names:
        experts[each], stages[each] = _make_expert(heavy, plans[each], calibration, splits, options, loader)
        say(f"    {each:<12} cut {_percent(stages[each].cut)}  repaired {_percent(stages[each].repaired)}  "
            f"fine-tuned {_percent(stages[each].tuned)}  (dense {_percent(dense)})")
    if stages[options.criterion].tuned.top1 < stages["random"].tuned.top1:
        say(f"    warning: {options.criterion} ends below the random control here")
    light = experts[options.criterion]
    save_expert(light, folder / "light", chosen, preprocessing=preprocessing)

    say("4/6 set the threshold on held-out images")
    costs = Costs.of(light, heavy)
    held_out = _both(light, heavy, loader(splits.threshold))
    judged = (logits(light, loader(splits.judge), description="light expert")[0], *heavy_judged)
    result, predictions = _judge(held_out, judged, costs, options)
    result.router.save(folder / "router.json")
    for file, table in (("predictions-threshold", predictions[0]), ("predictions", predictions[1]), ("curve", result.curve)):
        table.save(folder / f"{file}.arrow")
    among_present = _among_present(held_out, judged, costs, options)

    say("5/6 run the cascade itself")
    cascade = Cascade(light, heavy, result.router)
    measured = evaluate(cascade, loader(splits.judge)).top1
    result = replace(result, ledger=cascade.ledger, cascade=measured)  # of the running module, not of the logs
    x = torch.stack([splits.judge[i][0] for i in range(min(TIMED_IMAGES, len(splits.judge)))])
    timings = race({"heavy": heavy, "light": light, "cascade": cascade}, x, batch=TIMED_BATCH)

    say("6/6 report")
    outcome = RunResult(options, name, int(judged[1].shape[1]), images, statistics.metadata["agflow.data"], dense, stages,
                        score(statistics, options.criterion, seed=options.seed), chosen, result, among_present, timings)
    write_report(outcome, folder)
    return outcome


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.top1:5.1f} %"


def _run_folder(path: str) -> pathlib.Path:
    """Make the run folder; an earlier run is overwritten, anything else is left alone."""
    folder = pathlib.Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = any(folder.iterdir()) and not (folder / "statistics.arrow").exists()
    except OSError as error:
        raise FileError(f"run folder {folder} cannot be made: {error.strerror}: choose another --output") from error
    if foreign:
        raise FileError(f"folder {folder} holds files that no agflow run has written: choose an empty --output")
    return folder


def _split(options: RunOptions, preprocessing: data.Preprocessing, heavy: nn.Module) -> Splits:
    """Shuffle the data once by the seed; the last share sets the threshold and is used for nothing else."""
    load = lambda spec, limit: data.load(spec, preprocessing=preprocessing, label=options.label, limit=limit,
                                         seed=options.seed, classes=heavy.num_classes)
    source = load(options.data, options.limit)
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(options.seed)).tolist()
    tuned = round(len(order) * (1 - THRESHOLD_SHARE))
    if not 0 < tuned < len(order):
        raise EmptyError(f"{options.data} has {len(order)} images, expected at least 2: some tune the light expert, others set the threshold")
    return Splits(Subset(source, order[:tuned]), Subset(source, order[tuned:]), load(options.eval, options.eval_limit))


def _first(dataset: Dataset, count: int) -> Dataset:
    return Subset(dataset, range(min(count, len(dataset))))


def _make_expert(heavy, plan_, calibration, splits, options, loader) -> tuple[nn.Module, Stages]:
    judge = lambda model: evaluate(model, loader(splits.judge))
    cut = judge(prune(heavy, plan_, compensate="none"))
    light = prune(heavy, plan_, loader(calibration), compensate=options.compensate)
    repaired = judge(light)
    if options.epochs == 0:
        return light, Stages(cut, repaired, repaired)
    shuffled = DataLoader(splits.tune, batch_size=options.batch_size, shuffle=True,
                          generator=torch.Generator().manual_seed(options.seed))
    finetune(light, shuffled, teacher=heavy, epochs=options.epochs, seed=options.seed)
    return light, Stages(cut, repaired, judge(light))


def _both(light, heavy, batches) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of both experts and the labels."""
    light_NK, labels = logits(light, batches, description="light expert")
    return light_NK, logits(heavy, batches, description="heavy expert")[0], labels


def _judge(held_out, judged, costs, options) -> tuple[CascadeResult, tuple[Predictions, Predictions]]:
    """Set the threshold on ``held_out`` and read its result off ``judged``; both are (light, heavy, labels)."""
    calibrating = routing.join_predictions(*held_out, costs)
    judging = routing.join_predictions(*judged, costs)
    router = routing.threshold_for(calibrating, tolerance=options.tolerance, confidence=options.confidence)
    columns = judging.columns
    escalates = columns["light_prior"] < router.threshold
    answers = columns["heavy_prediction"].copy()
    answers[~escalates] = columns["light_prediction"][~escalates]
    ledger = Ledger.of(costs, len(judging), int(escalates.sum()))
    light, heavy = judging.light_accuracy, judging.heavy_accuracy
    random = (1 - ledger.escalation) * light + ledger.escalation * heavy
    cascade = float((answers == columns["label"]).mean())
    return CascadeResult(router, ledger, light, heavy, cascade, random, routing.curve(judging)), (calibrating, judging)


def _among_present(held_out, judged, costs, options) -> CascadeResult | None:
    """The same with both experts told which classes occur; None when all of them do."""
    present = torch.cat([held_out[2], judged[2]]).unique()
    if len(present) == held_out[0].shape[1]:
        return None
    told = lambda light, heavy, labels: (restrict(light, labels, present)[0], *restrict(heavy, labels, present))
    return _judge(told(*held_out), told(*judged), costs, options)[0]
