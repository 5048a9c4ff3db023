"""``agflow bench bottleneck``: is AGF's signal compressed as a model converges, and does AGF route as well as confidence?

arXiv 2603.12354 reports that the dynamic range of the gradient signal falls from 149.4x to 21.4x in converged models, and
concludes that one should "build the road with AGF, walk it with confidence". Here is what a training from random weights, a
fine-tuning after a cut, and the cascade of the two experts show of both sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial

import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from agflow.bench import machine
from agflow.calibration.calibration import calibrate
from agflow.cascade.curves import curve
from agflow.cascade.predictions import Predictions, predict
from agflow.cascade.priors import PRIOR as CONFIDENCE
from agflow.cascade.priors import rank
from agflow.data import datasets as data
from agflow.data.datasets import load_dataset
from agflow.errors import InvalidValueError
from agflow.evaluation.interleaved import interleaved
from agflow.example.train import ARCHITECTURE
from agflow.models import count_macs, logits_of
from agflow.models.load import load_model
from agflow.pruning.planning import plan
from agflow.pruning.pruner import prune
from agflow.research.bottleneck import (
    PRIOR,
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


@dataclass(frozen=True)
class Options:
    """Of one comparison; the command's flags have the same names.

    Attributes
    ----------
    data : its first ``calibration`` images measure the utilities of units and repair the cut, the next ``tune`` ones train
    eval : ``eval_limit`` images of it train nothing: utilities of images, AUROC and cost are theirs
    scratch_epochs : of a training from random weights, of the shipped example's architecture and for ``model="example"`` alone
    """

    model: str = "example"
    weights: str | None = None
    data: str = "example:train"
    eval: str = "example:test"
    label: str | None = None
    macs: str = "0.35"
    calibration: int = 256
    tune: int = 2400
    eval_limit: int | None = 1000
    epochs: int = 3
    scratch_epochs: int = 8
    lr: float = 3e-4
    rounds: int = 5
    seed: int = 0


def measure(options: Options, say: Callable[[str], None] = print) -> dict:
    """Every figure of ``agflow bench bottleneck``, ready for JSON.

    The light expert is cut by AGF to ``macs``, repaired, and fine-tuned with the heavy one as its teacher, watched; the heavy
    expert is measured as it comes. The least charged cost of a prior is that of its best threshold on the judging images: too
    kind, but to all priors alike.

    Raises
    ------
    InvalidValueError
        Fewer than one image, epoch or round.
    """
    _check(options)
    heavy, preprocessing, name = load_model(options.model, options.weights)
    images = _images(options, preprocessing, heavy)
    calibration, judging = (
        DataLoader(images[use], batch_size=BATCH) for use in ("calibration", "judge")
    )
    watch = lambda model: UtilityTrace(model, calibration, judging)
    converged = _row(watch(heavy).record())
    say("\n".join([_HEADER, _line("heavy", converged)]))
    trainings = {}
    if options.model == "example" and options.scratch_epochs:
        torch.manual_seed(options.seed)
        fresh = timm.create_model(**ARCHITECTURE)
        trainings["from random weights"] = _train(
            watch(fresh),
            images["tune"],
            replace(options, epochs=options.scratch_epochs, lr=SCRATCH_LR),
            None,
            say,
        )
    light = prune(
        heavy,
        plan(
            calibrate(heavy, calibration, batches=len(calibration), seed=options.seed),
            macs=options.macs,
        ),
        calibration,
    )
    trainings["light expert, after the cut"] = _train(
        watch(light), images["tune"], options, heavy, say
    )
    predictions = with_utilities(predict(light, heavy, judging, features=True), light, judging)
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
            for quality in rank(predictions)
        ],
        "cost": _cost(light, images["judge"], options.rounds),
    }


def _check(options: Options) -> None:
    if (
        min(options.calibration, options.tune, options.epochs, options.rounds) < 1
        or options.scratch_epochs < 0
    ):
        raise InvalidValueError(
            f"calibration is {options.calibration}, tune {options.tune}, epochs {options.epochs}, rounds {options.rounds} and "
            f"scratch_epochs {options.scratch_epochs}, expected whole numbers from 1, scratch_epochs from 0"
        )


def _images(
    options: Options, preprocessing: data.Preprocessing, model: nn.Module
) -> dict[str, Dataset]:
    load = partial(
        load_dataset,
        preprocessing=preprocessing,
        label=options.label,
        seed=options.seed,
        classes=model.num_classes,
    )
    return {
        "calibration": load(options.data, limit=options.calibration),
        "tune": load(options.data, offset=options.calibration, limit=options.tune),
        "judge": load(options.eval, limit=options.eval_limit),
    }


def _train(
    trace: UtilityTrace,
    images: Dataset,
    options: Options,
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
    """The least charged cost among the thresholds at which the cascade is right as often as the heavy expert; None where none is."""
    table = curve(predictions, prior=prior, points=EVERY_THRESHOLD).columns
    enough = table["charged"][table["accuracy"] >= predictions.heavy_accuracy]
    return float(enough.min()) if len(enough) else None


def _cost(light: nn.Module, images: Dataset, rounds: int) -> dict:
    """What a utility costs beside a light pass of the same images: MACs and time, as multiples of that pass."""
    x = torch.stack([images[i % len(images)][0] for i in range(BATCH)])

    @torch.inference_mode()
    def forward() -> None:
        logits_of(light(x))

    light.eval()
    times = interleaved(
        {
            "forward": forward,
            "utility": lambda: image_utilities(light, [(x, None)]),
        },
        rounds=rounds,
        clock=machine.clock(x.device),
    )
    return {
        "light_macs": count_macs(light),
        "utility_macs": utility_macs(light),
        "time": times["utility"].over(times["forward"])._asdict(),
    }


def text(found: dict) -> str:
    """The figures for people, and what they say of the paper's claim."""
    options, cost = found["options"], found["cost"]
    lines = [
        machine.sentence(found["machine"]),
        f"{found['model']}, cut to {options['macs']} of its MACs; {options['calibration']} images measure units, {options['tune']} train, "
        f"{found['priors'][0]['errors']} errors of the light expert among the judging images "
        f"(light {100 * found['light_accuracy']:.1f} %, heavy {100 * found['heavy_accuracy']:.1f} %)",
        "",
        "dynamic range of the AGF signal, max/median: over all units, inside a layer (median of layers), over the images that judge",
        _HEADER,
        _line("heavy", found["heavy"]),
    ]
    for training, rows in found["trainings"].items():
        lines += [training, *(_line(f"  epoch {row['epoch']}", row) for row in rows)]
    lines += [
        "",
        f"{'prior of the light expert':<26} {'AUROC':>6} {'95 %':>14}   least charged cost at the heavy expert's accuracy",
    ]
    for prior in found["priors"]:
        least = (
            "none reaches it"
            if prior["least_charged"] is None
            else f"{prior['least_charged']:.3f}x"
        )
        lines.append(
            f"{prior['prior']:<26} {prior['auroc']:6.3f} {prior['low']:6.3f} to {prior['high']:.3f}   {least}"
        )
    time = cost["time"]
    lines += [
        "",
        f"agf costs {cost['utility_macs'] / cost['light_macs']:.2f}x the MACs of a light pass beside it; both together take "
        f"{time['median']:.2f}x ({time['min']:.2f} to {time['max']:.2f}) its time",
        *verdict(found),
    ]
    return "\n".join(lines)


def verdict(found: dict) -> list[str]:
    """What the figures say of the two sentences of the paper, a line a figure."""
    lines = []
    for training, rows in found["trainings"].items():
        for what, spread in (
            ("units", lambda row: row["units"]["overall"]),
            ("images", lambda row: row["images"]),
        ):
            *earlier, last = [spread(row)["max_over_median"] for row in rows]
            if last and None not in earlier:
                said = (
                    "reproduced"
                    if last < max(earlier) / 2
                    else "not clear"
                    if last < max(earlier)
                    else "refuted"
                )
                lines.append(
                    f"signal compression, {training}, over {what}: from at most {max(earlier):.1f} to {last:.1f} at the end: {said} here"
                )
    priors = {prior["prior"]: prior for prior in found["priors"]}
    agf, confidence = priors[PRIOR], priors[CONFIDENCE]
    better, worse = agf["low"] > confidence["high"], agf["high"] < confidence["low"]
    told = "better than" if better else "worse than" if worse else "about as well as"
    lines.append(
        f"walk it with confidence: {PRIOR} tells errors {told} {CONFIDENCE}, for a backward pass more: {'refuted' if better else 'reproduced'} here"
    )
    return lines


_HEADER = f"{'':<26} {'units':>7} {'layer':>7} {'images':>7} {'right %':>7}   AUROC of {PRIOR}, of {CONFIDENCE}"


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
        + f" {100 * row['accuracy']:7.1f}   {auroc[PRIOR]:.3f}, {auroc[CONFIDENCE]:.3f}"
    )
