"""``agflow bench bottleneck``: the range of AGF's signal during training, and AGF as a router.

arXiv 2603.12354 reports that the dynamic range of the gradient signal falls from 149.4x to 21.4x in
converged models, and concludes that AGF should prune and confidence should route. This benchmark
tests both claims on a training from random weights, a fine-tuning after pruning, and the cascade of
the two experts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import nn
from torch.utils.data import DataLoader

from agflow._utils.defaults import default
from agflow.bench import machine
from agflow.bench.images import images_by_use
from agflow.calibration.calibration import calibrate
from agflow.calibration.options import CalibrationOptions
from agflow.cascade.curves import curve
from agflow.cascade.expert_passes import predict
from agflow.cascade.predictions import Predictions
from agflow.cascade.prior_quality import rank_priors
from agflow.cascade.priors import MAX_PROBABILITY
from agflow.data.datasets import Dataset
from agflow.errors import InvalidValueError
from agflow.evaluation.timing import interleaved
from agflow.example.train import ARCHITECTURE
from agflow.models import count_macs, logits_of
from agflow.models.load import load_model
from agflow.pruning.planning import plan
from agflow.pruning.pruner import prune
from agflow.research.bottleneck import (
    AGF_PRIOR,
    TracePoint,
    UtilityTrace,
    image_utilities,
    utility_macs,
    with_utilities,
)
from agflow.training.finetuning import finetune
from agflow.training.options import Distillation

BATCH = 32
SCRATCH_LR = 1e-3
EVERY_THRESHOLD = 10**6
FROM_SCRATCH, AFTER_PRUNING = "from random weights", "light expert, after the cut"


@dataclass(frozen=True)
class BottleneckBenchOptions:
    """Options of one comparison; the command's flags have the same names.

    Attributes
    ----------
    data : its first ``calibration`` images measure the utilities of units and repair the pruned
        model, the next ``tune`` ones train
    eval : test images, ``eval_limit`` of them: utilities of images, AUROC and cost are theirs
    scratch_epochs : of a training from random weights, of the shipped example's architecture and
        for ``model="example"`` alone
    """

    model: str = default("common", "model")
    weights: str | None = None
    data: str = default("common", "data")
    eval: str = default("common", "test_data")
    label: str | None = None
    macs: str = default("bench_bottleneck", "macs")
    calibration: int = default("bench_bottleneck", "calibration")
    tune: int = default("bench_bottleneck", "tune")
    eval_limit: int | None = default("bench_bottleneck", "eval_limit")
    epochs: int = default("bench_bottleneck", "epochs")
    scratch_epochs: int = default("bench_bottleneck", "scratch_epochs")
    lr: float = default("bench_bottleneck", "lr")
    rounds: int = default("bench_bottleneck", "rounds")
    seed: int = default("common", "seed")


def measure(options: BottleneckBenchOptions, say: Callable[[str], None] = print) -> dict:
    """Trace the utilities during trainings, and compare AGF with the other priors as a router.

    The light expert is pruned by AGF to ``macs``, repaired, and fine-tuned with the heavy one as
    its teacher, and traced meanwhile; the heavy expert is measured as it is. The least charged cost
    of a prior is that of its best threshold on the test images: optimistic, but for all priors
    alike.

    Parameters
    ----------
    say : receives the figures of every epoch as text

    Returns
    -------
    figures ready for JSON

    Raises
    ------
    InvalidValueError
        Fewer than one image, epoch or round.
    """
    _check(options)
    heavy, preprocessing, name = load_model(options.model, options.weights)
    images = images_by_use(options, preprocessing, heavy)
    calibration, test = (
        DataLoader(images[use], batch_size=BATCH) for use in ("calibration", "test")
    )
    trace = lambda model: UtilityTrace(model, calibration, test)
    converged = _row(trace(heavy).record())
    say("\n".join([_HEADER, _line("heavy", converged)]))
    trainings = {}
    if options.model == "example" and options.scratch_epochs:
        scratch = replace(options, epochs=options.scratch_epochs, lr=SCRATCH_LR)
        fresh = _fresh_model(options.seed)
        trainings[FROM_SCRATCH] = _train(trace(fresh), images["tune"], scratch, None, say)
    statistics = calibrate(
        heavy,
        calibration,
        batches=len(calibration),
        options=CalibrationOptions(seed=options.seed),
    )
    light = prune(heavy, plan(statistics, macs=options.macs), calibration)
    trainings[AFTER_PRUNING] = _train(trace(light), images["tune"], options, heavy, say)
    predictions = with_utilities(predict(light, heavy, test, features=True), light, test)
    return {
        "machine": machine.describe(),
        "threads": torch.get_num_threads(),
        "model": name,
        "options": asdict(options),
        "heavy": converged,
        "trainings": trainings,
        "heavy_macs": count_macs(heavy),
        "light_accuracy": predictions.light_accuracy,
        "heavy_accuracy": predictions.heavy_accuracy,
        "priors": [
            {**asdict(quality), "least_charged": _least_charged(predictions, quality.prior)}
            for quality in rank_priors(predictions)
        ],
        "cost": _cost(light, images["test"], options.rounds),
    }


def _fresh_model(seed: int) -> nn.Module:
    import timm

    torch.manual_seed(seed)
    return timm.create_model(**ARCHITECTURE)


def _check(options: BottleneckBenchOptions) -> None:
    if (
        min(options.calibration, options.tune, options.epochs, options.rounds) < 1
        or options.scratch_epochs < 0
    ):
        raise InvalidValueError(
            f"calibration is {options.calibration}, tune {options.tune}, epochs {options.epochs}, "
            f"rounds {options.rounds} and scratch_epochs {options.scratch_epochs}, expected whole "
            "numbers from 1, scratch_epochs from 0"
        )


def _train(
    trace: UtilityTrace,
    images: Dataset,
    options: BottleneckBenchOptions,
    teacher: nn.Module | None,
    say: Callable[[str], None],
) -> list[dict]:
    shuffled = DataLoader(
        images,
        batch_size=BATCH,
        shuffle=True,
        generator=torch.Generator().manual_seed(options.seed),
    )
    finetune(
        trace.model,
        trace.watching(shuffled),
        epochs=options.epochs,
        lr=options.lr,
        distillation=None if teacher is None else Distillation(teacher),
        seed=options.seed,
    )
    trace.record()
    rows = [_row(point) for point in trace.points]
    say("\n".join(_line(f"epoch {row['epoch']}", row) for row in rows))
    return rows


def _least_charged(predictions: Predictions, prior: str) -> float | None:
    """The least expected cost of a threshold that reaches the heavy expert's accuracy, or None."""
    table = curve(predictions, prior=prior, points=EVERY_THRESHOLD).columns
    enough = table["charged"][table["accuracy"] >= predictions.heavy_accuracy]
    return float(enough.min()) if len(enough) else None


def _cost(light: nn.Module, images: Dataset, rounds: int) -> dict:
    """MACs and time of the utilities of images, beside a light pass of the same images."""
    x = torch.stack([images[i % len(images)][0] for i in range(BATCH)])

    @torch.inference_mode()
    def forward() -> None:
        logits_of(light(x))

    light.eval()
    runs = {"forward": forward, "utility": lambda: image_utilities(light, [(x, None)])}
    times = interleaved(runs, rounds=rounds, clock=machine.clock(x.device))
    return {
        "light_macs": count_macs(light),
        "utility_macs": utility_macs(light),
        "time": times["utility"].over(times["forward"])._asdict(),
    }


def text(found: dict) -> str:
    """The figures as text, and what they show of the paper's claims."""
    options, cost = found["options"], found["cost"]
    lines = [
        machine.sentence(found["machine"]),
        f"{found['model']}, pruned to {options['macs']} of its MACs; {options['calibration']} "
        f"images measure units, {options['tune']} train, {found['priors'][0]['errors']} errors of "
        f"the light expert among the test images (light {100 * found['light_accuracy']:.1f} %, "
        f"heavy {100 * found['heavy_accuracy']:.1f} %)",
        "",
        "dynamic range of the AGF signal, max/median: over all units, inside a layer (median of "
        "layers), over the test images",
        _HEADER,
        _line("heavy", found["heavy"]),
    ]
    for training, rows in found["trainings"].items():
        lines += [training, *(_line(f"  epoch {row['epoch']}", row) for row in rows)]
    lines += ["", *_prior_lines(found["priors"])]
    time, macs = cost["time"], cost["utility_macs"] / cost["light_macs"]
    lines += [
        "",
        f"agf costs {macs:.2f}x the MACs of a light pass beside it; both together take "
        f"{time['median']:.2f}x ({time['min']:.2f} to {time['max']:.2f}) its time",
        *verdict(found),
    ]
    return "\n".join(lines)


def _prior_lines(priors: list[dict]) -> list[str]:
    lines = [
        f"{'prior of the light expert':<26} {'AUROC':>6} {'95 %':>14}   "
        "least expected cost at the heavy expert's accuracy"
    ]
    for prior in priors:
        least = prior["least_charged"]
        lines.append(
            f"{prior['prior']:<26} {prior['auroc']:6.3f} "
            f"{prior['low']:6.3f} to {prior['high']:.3f}   "
            f"{'none reaches it' if least is None else f'{least:.3f}x'}"
        )
    return lines


def verdict(found: dict) -> list[str]:
    """What the figures show of the two claims of the paper, a line a figure."""
    lines = []
    for training, rows in found["trainings"].items():
        for what, spread in (
            ("units", lambda row: row["units"]["overall"]),
            ("images", lambda row: row["images"]),
        ):
            *earlier, last = [spread(row)["max_over_median"] for row in rows]
            if last and None not in earlier:
                most = max(earlier)
                shown = "refuted" if last >= most else "not clear"
                shown = "reproduced" if last < most / 2 else shown
                lines.append(
                    f"signal compression, {training}, over {what}: from at most {most:.1f} to "
                    f"{last:.1f} at the end: {shown} here"
                )
    priors = {prior["prior"]: prior for prior in found["priors"]}
    agf, confidence = priors[AGF_PRIOR], priors[MAX_PROBABILITY]
    better, worse = agf["low"] > confidence["high"], agf["high"] < confidence["low"]
    compared = "better than" if better else "worse than" if worse else "about as well as"
    lines.append(
        f"route by confidence: {AGF_PRIOR} predicts errors {compared} {MAX_PROBABILITY}, for a "
        f"backward pass more: {'refuted' if better else 'reproduced'} here"
    )
    return lines


_HEADER = (
    f"{'':<26} {'units':>7} {'layer':>7} {'images':>7} {'right %':>7}   "
    f"AUROC of {AGF_PRIOR}, of {MAX_PROBABILITY}"
)


def _row(point: TracePoint) -> dict:
    return {
        **asdict(point),
        "priors": [asdict(prior) for prior in point.priors],
        "layer_median": point.layer_median,
    }


def _line(what: str, row: dict) -> str:
    auroc = {prior["prior"]: prior["auroc"] for prior in row["priors"]}
    ratios = (
        row["units"]["overall"]["max_over_median"],
        row["layer_median"],
        row["images"]["max_over_median"],
    )
    return (
        f"{what:<26} "
        + " ".join(f"{'–' if ratio is None else format(ratio, '.1f'):>7}" for ratio in ratios)
        + f" {100 * row['accuracy']:7.1f}   {auroc[AGF_PRIOR]:.3f}, {auroc[MAX_PROBABILITY]:.3f}"
    )
