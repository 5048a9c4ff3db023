"""The whole pipeline on one model, from calibration to the report of a routed cascade."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from agflow._utils.defaults import default
from agflow.calibration.calibration import calibrate
from agflow.calibration.options import CalibrationOptions
from agflow.calibration.statistics import Statistics
from agflow.cascade.cascade import Cascade
from agflow.cascade.curves import curve
from agflow.cascade.ledger import CascadeCosts, Ledger
from agflow.cascade.predictions import FixedParameters, Predictions, join_predictions
from agflow.cascade.priors import escalations
from agflow.cascade.router import calibrate_router
from agflow.data.augmentation import shifting_batch
from agflow.data.leakage import sketch_images
from agflow.data.loading import image_loader
from agflow.data.preprocessing import Preprocessing
from agflow.data.repeated import SameImages
from agflow.errors import UnsupportedModelError
from agflow.evaluation.accuracy import Accuracy, accuracy, evaluate, logits, restrict, top1
from agflow.evaluation.timing import Timing, first_images, time_models
from agflow.models.expert import save_expert
from agflow.models.load import load_model
from agflow.models.passes import LABELS, run_models
from agflow.pruning.allocation import Allocation
from agflow.pruning.planning import Plan, plan
from agflow.pruning.pruner import prune
from agflow.pruning.scoring import needs_weight_gradients, score
from agflow.recipes.report import write_report
from agflow.recipes.results import CascadeResult, RunOptions, RunResult, Stages
from agflow.recipes.run_folder import LIGHT_FOLDER, RunFolder, run_folder
from agflow.recipes.splits import Splits, split_images
from agflow.training.digests import digest_of
from agflow.training.finetuning import finetune
from agflow.training.objective import last_block
from agflow.training.options import Distillation

CONTROL = "random"
TEACHER_SHARE = default("finetune", "distill")  # of the loss
TOKENS_WEIGHT = default("run", "features")  # of the error of the last block's tokens
WIDTHS = default("run", "widths")
TIMED_IMAGES = 256
TIMED_BATCH = 32

Say = Callable[[str], None]


@dataclass(frozen=True)
class Answers:
    """Logits of both experts on the same images, float32 [N, K], and labels int64 [N]."""

    light_NK: torch.Tensor
    heavy_NK: torch.Tensor
    labels_N: torch.Tensor

    def among(self, classes: torch.Tensor) -> Answers:
        """The same with both experts restricted to ``classes``."""
        light_NK, labels_N = restrict(self.light_NK, self.labels_N, classes)
        heavy_NK, _ = restrict(self.heavy_NK, self.labels_N, classes)
        return Answers(light_NK, heavy_NK, labels_N)


def run(options: RunOptions, say: Say = print) -> RunResult:
    """Calibrate, plan, prune, repair and fine-tune a model, route it as a cascade and report.

    Writes statistics.arrow, plan.arrow, light/ (expert folder), predictions-threshold.arrow,
    predictions.arrow (of the test images), curve.arrow, router.json, five pictures, report.md and
    report.json into ``options.output``, whose ``run.json`` has a digest of options and inputs.
    The folder is this run's: a second one is refused meanwhile, an older one's files are removed.

    Parameters
    ----------
    say : receives a line of text at every step

    Raises
    ------
    AgflowError
        Any step refuses its input; the message says which and what to do. Files that this run has
        written stay, and those of an older one until this one's inputs are loaded.

    Examples
    --------
    >>> import agflow
    >>> options = agflow.recipes.RunOptions(
    ...     output="small-run", macs="0.5", epochs=0, batches=1, limit=100, eval_limit=50
    ... )
    >>> result = agflow.recipes.run(options, say=lambda line: None)
    >>> sorted(result.stages), result.images["test"]
    (['agf', 'random'], 50)
    """
    with run_folder(options.output) as folder, options.computing.precision():
        return _run(options, folder, say)


def _heavy(options: RunOptions) -> tuple[nn.Module, Preprocessing, str]:
    return load_model(
        options.model, options.weights, mean=options.mean or None, std=options.std or None
    )


def _run(options: RunOptions, output: RunFolder, say: Say) -> RunResult:
    heavy, preprocessing, name = _heavy(options)
    splits = split_images(options, preprocessing, options.computing.move(heavy))
    inputs = {"model": digest_of(heavy), "images": splits.counts}
    folder, run = output.path, output.begin(options, inputs)
    say(f"{name}: {', '.join(f'{n} {use}' for use, n in splits.counts.items())} images")

    say("1/6 calibrate: activations and gradients to the Go core")
    statistics = _calibrate(heavy, splits, options)
    statistics.save(folder / "statistics.arrow")

    say("2/6 plan")
    plans = _plans(statistics, options)
    chosen = plans[options.criterion]
    chosen.save(folder / "plan.arrow")
    say(f"    {_cost(chosen)}")

    say("3/6 prune, repair, fine-tune: the criterion and its control side by side")
    test = SameImages(_loader(splits.test, options))  # both experts' answers are joined by row
    heavy_NK, labels_N = logits(heavy, test, description="heavy expert")
    dense = accuracy(heavy_NK, labels_N)
    light, stages = _side_by_side(heavy, plans, splits, options, dense, say)
    sketch = sketch_images(_loader(splits.tune, options))
    save_expert(light, folder / LIGHT_FOLDER, chosen, preprocessing=preprocessing, tuning=sketch)

    say("4/6 calibrate the threshold on held-out images")
    costs = CascadeCosts.of(light, heavy)
    tested = Answers(logits(light, test, description="light expert")[0], heavy_NK, labels_N)
    held_out = _answers(light, heavy, _loader(splits.threshold, options))
    logged, calibrating, predictions = _route(held_out, tested, costs, options)
    _save_routing(folder, logged, calibrating, predictions)

    say("5/6 run the cascade itself")
    routed, timings = _run_cascade(light, heavy, logged, splits.test, options)

    say("6/6 report")
    result = RunResult(
        options=options,
        name=name,
        classes=heavy_NK.shape[1],
        images=splits.counts,
        fingerprint=statistics.metadata["agflow.data"],
        dense=dense,
        stages=stages,
        scores=score(statistics, options.criterion, seed=options.seed),
        plan=chosen,
        test=splits.test,
        predictions=predictions,
        cascade=routed,
        cascade_among_present=_route_among_present(held_out, tested, costs, options),
        timings=timings,
    )
    write_report(result, folder, run)
    output.seal()
    return result


def _cost(chosen: Plan) -> str:
    macs, dense_macs = chosen.macs, chosen.model_macs
    return f"{macs / 1e6:.1f} M of {dense_macs / 1e6:.1f} M MACs ({macs / dense_macs:.3f}x)"


def _loader(dataset: Dataset, options: RunOptions) -> DataLoader:
    return image_loader(dataset, options.batch_size, workers=options.workers)


def _calibrate(heavy: nn.Module, splits: Splits, options: RunOptions) -> Statistics:
    return calibrate(
        heavy,
        _loader(splits.calibration, options),
        batches=options.batches,
        groups=options.groups,
        weight_gradients=needs_weight_gradients(options.criterion),
        options=CalibrationOptions(seed=options.seed),
    )


def _plans(statistics: Statistics, options: RunOptions) -> dict[str, Plan]:
    """The plan of the criterion and of the control, under the same budget, with uniform widths.

    Shared widths and sequential reconstruction start far higher, but fine-tuned on the example they
    end no higher.
    """
    allocation = Allocation(
        widths=WIDTHS,
        round_to=options.round_to,
        groups=options.groups,
        ignored_layers=options.ignored_layers,
    )
    return {
        criterion: plan(
            statistics,
            macs=options.macs,
            pruning_ratio=options.pruning_ratio,
            criterion=criterion,
            allocation=allocation,
            seed=options.seed,
        )
        for criterion in dict.fromkeys([options.criterion, CONTROL])
    }


def _side_by_side(
    heavy: nn.Module,
    plans: dict[str, Plan],
    splits: Splits,
    options: RunOptions,
    dense: Accuracy,
    say: Say,
) -> tuple[nn.Module, dict[str, Stages]]:
    """The criterion's light expert, and the accuracies of it and of the control at every stage."""
    experts, stages = {}, {}
    for name, plan_ in plans.items():
        experts[name], stages[name] = _make_expert(heavy, plan_, splits, options)
        found = stages[name]
        say(
            f"    {name:<12} pruned {_percent(found.cut)}  repaired {_percent(found.repaired)}  "
            f"fine-tuned {_percent(found.tuned)}  (dense {_percent(dense)})"
        )
    if stages[options.criterion].tuned.top1 < stages[CONTROL].tuned.top1:
        say(f"    warning: {options.criterion} ends below the {CONTROL} control here")
    return experts[options.criterion], stages


def _percent(accuracy: Accuracy) -> str:
    return f"{100 * accuracy.top1:5.1f} %"


def _make_expert(
    heavy: nn.Module, plan_: Plan, splits: Splits, options: RunOptions
) -> tuple[nn.Module, Stages]:
    def tested(model: nn.Module) -> Accuracy:
        return evaluate(model, _loader(splits.test, options))

    cut = tested(prune(heavy, plan_, compensate="none"))
    light = prune(heavy, plan_, _loader(splits.calibration, options), compensate=options.compensate)
    repaired = tested(light)
    if options.epochs == 0:
        return light, Stages(cut, repaired, repaired)
    shuffled = image_loader(
        splits.tune,
        options.batch_size,
        workers=options.workers,
        shuffle_seed=options.seed,
        collate=shifting_batch,
    )
    features = TOKENS_WEIGHT if _tokens_match(light, plan_) else 0.0
    finetune(
        light,
        shuffled,
        epochs=options.epochs,
        lr=options.lr,
        distillation=Distillation(heavy, share=TEACHER_SHARE, features=features),
        seed=options.seed,
    )
    return light, Stages(cut, repaired, tested(light))


def _tokens_match(light: nn.Module, plan_: Plan) -> bool:
    """Whether the experts' last blocks are known and put out tokens of the same width."""
    if any(layer.group == "embed" and layer.kept < layer.units for layer in plan_.planned):
        return False
    try:
        last_block(light)
    except UnsupportedModelError:
        return False
    return True


def _answers(light: nn.Module, heavy: nn.Module, loader: DataLoader) -> Answers:
    rows = run_models({"light": light, "heavy": heavy}, loader, description="both experts")
    return Answers(rows["light"], rows["heavy"], rows[LABELS])


def _route(
    held_out: Answers, tested: Answers, costs: CascadeCosts, options: RunOptions
) -> tuple[CascadeResult, Predictions, Predictions]:
    """Calibrate the threshold on ``held_out`` and evaluate it on ``tested``.

    Returns
    -------
    the result on ``tested``, and the predictions of ``held_out`` and of ``tested``
    """
    calibrating = join_predictions(held_out.light_NK, held_out.heavy_NK, held_out.labels_N, costs)
    predictions = join_predictions(
        tested.light_NK,
        tested.heavy_NK,
        tested.labels_N,
        costs,
        fixed=FixedParameters(temperature=calibrating.temperature),
    )
    router = calibrate_router(
        calibrating, tolerance=options.tolerance, confidence=options.confidence
    )
    escalated = escalations(
        tested.light_NK, router.threshold, prior=router.prior, temperature=router.temperature
    )
    answers_NK = tested.light_NK.index_copy(0, escalated, tested.heavy_NK[escalated])
    ledger = Ledger.of(costs, len(predictions), len(escalated))
    light, heavy = predictions.light_accuracy, predictions.heavy_accuracy
    result = CascadeResult(
        router=router,
        ledger=ledger,
        light=light,
        heavy=heavy,
        cascade=top1(answers_NK, tested.labels_N),
        random=(1 - ledger.escalation) * light + ledger.escalation * heavy,
        curve=curve(predictions),
    )
    return result, calibrating, predictions


def _route_among_present(
    held_out: Answers, tested: Answers, costs: CascadeCosts, options: RunOptions
) -> CascadeResult | None:
    """The result with both experts restricted to the classes that occur; None where all do."""
    present = torch.cat([held_out.labels_N, tested.labels_N]).unique()
    if len(present) == held_out.light_NK.shape[1]:
        return None
    return _route(held_out.among(present), tested.among(present), costs, options)[0]


def _run_cascade(
    light: nn.Module, heavy: nn.Module, logged: CascadeResult, test: Dataset, options: RunOptions
) -> tuple[CascadeResult, dict[str, Timing]]:
    """Accuracy and ledger of the running module in place of those of the logs; images a second."""
    cascade = Cascade(light, heavy, logged.router)
    measured = evaluate(cascade, _loader(test, options)).top1
    result = replace(logged, ledger=cascade.ledger, cascade=measured)
    x = first_images(test, TIMED_IMAGES).to(options.device)
    contenders = {"heavy": heavy, "light": light, "cascade": cascade}
    return result, time_models(contenders, x, batch=TIMED_BATCH)


def _save_routing(
    folder: pathlib.Path, result: CascadeResult, calibrating: Predictions, tested: Predictions
) -> None:
    result.router.save(folder / "router.json")
    calibrating.save(folder / "predictions-threshold.arrow")
    tested.save(folder / "predictions.arrow")
    result.curve.save(folder / "curve.arrow")
