"""``agflow bench pruning``: the prune step beside torch-pruning's, at the same MACs and images.

Each contender has a process of its own (``python -m agflow.bench.pruning REQUEST``), in which it
prunes, is evaluated, fine-tuned, evaluated again and timed in turn with the dense model.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader

from agflow import errors
from agflow._utils.defaults import default
from agflow.bench import machine
from agflow.bench.contenders import CONTENDERS, MLPS_AND_HEADS, chosen, macs_of
from agflow.bench.images import images_by_use
from agflow.bench.memory import keep_freed, peak_of
from agflow.calibration.calibration import calibrate
from agflow.data.datasets import Dataset
from agflow.errors import InternalError, InvalidValueError, UnsupportedModelError
from agflow.evaluation.accuracy import Accuracy, evaluate
from agflow.evaluation.timing import interleaved
from agflow.models import adapter_for, count_params
from agflow.models.load import load_model
from agflow.pruning.allocation import Allocation
from agflow.pruning.planning import plan
from agflow.training.finetuning import finetune
from agflow.training.options import Distillation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BATCHES = (1, 32)  # images a batch whose speed is measured
TIMED_IMAGES = {1: 8, 32: 32}
TEST_BATCH = 32
MACS = default("bench_pruning", "macs")
_COLOURS = {
    "agflow": "#2a9d8f",
    "random": "#9aa0a6",
    "torch-pruning": "#e76f51",
    "dense": "#33415c",
}


@dataclass(frozen=True)
class PruningBenchOptions:
    """Options of one comparison; the command's flags have the same names.

    Attributes
    ----------
    data : its first ``calibration`` images serve the prune step, the next ``tune`` ones the
        fine-tuning
    eval : test images, ``eval_limit`` of them
    """

    model: str = default("common", "model")
    weights: str | None = None
    data: str = default("common", "data")
    eval: str = default("common", "test_data")
    label: str | None = None
    macs: str | None = None
    pruning_ratio: float | None = None
    contenders: tuple[str, ...] = ()
    calibration: int = default("bench_pruning", "calibration")
    tune: int = default("bench_pruning", "tune")
    eval_limit: int | None = default("bench_pruning", "eval_limit")
    epochs: int = default("bench_pruning", "epochs")
    lr: float = default("bench_pruning", "lr")
    round_to: int = default("plan", "round_to")
    rounds: int = default("bench_pruning", "rounds")
    seed: int = default("common", "seed")


def measure(options: PruningBenchOptions, say: Callable[[str], None] = print) -> dict:
    """Prune, evaluate, fine-tune and time the same model by every contender.

    All contenders get as near to the same MACs as they can (those of agflow's plan), the same
    images, and the same fine-tuning with the dense model as the teacher.

    Parameters
    ----------
    say : receives the row of every contender as text

    Returns
    -------
    figures ready for JSON, a row a contender; seconds are CPU time where torch has one thread, else
    the wall's

    Raises
    ------
    InvalidValueError
        An unknown contender, two budgets, fewer than one round or image.
    UnsupportedModelError
        The model is no plain Vision Transformer of timm's, which torch-pruning's recipe is written
        for.
    """
    names = chosen(options.contenders)
    _check(options)
    model, preprocessing, name = load_model(options.model, options.weights)
    _check_model(model)
    images = images_by_use(options, preprocessing, model)
    macs = _target(model, images["calibration"], options)
    dense = evaluate(model, DataLoader(images["test"], batch_size=TEST_BATCH))
    found = {
        "machine": machine.describe(),
        "threads": torch.get_num_threads(),
        "model": name,
        "options": asdict(options),
        "macs": macs_of(model),
        "params": count_params(model),
        "target_macs": macs,
        "dense": asdict(dense),
        "contenders": [],
    }
    for contender in names:
        row = {"name": contender, **_in_process(options, contender, macs)}
        say("\n".join(_lines(row, found)))
        found["contenders"].append(row)
    return found


def _check(options: PruningBenchOptions) -> None:
    if min(options.calibration, options.tune, options.rounds) < 1 or options.epochs < 0:
        raise InvalidValueError(
            f"calibration is {options.calibration}, tune {options.tune}, rounds {options.rounds} "
            f"and epochs {options.epochs}, expected whole numbers from 1, epochs from 0"
        )
    if options.macs is not None and options.pruning_ratio is not None:
        raise InvalidValueError("macs and pruning_ratio were both given: give one budget")


def _check_model(model: nn.Module) -> None:
    from timm.layers import Attention, Mlp

    adapter = adapter_for(model)
    if adapter.family != "timm_vit" or any(
        type(block.attn) is not Attention or type(block.mlp) is not Mlp
        for block in cast(Any, model.blocks)
    ):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not supported by this comparison, expected a dense "
            "VisionTransformer of timm's with a plain MLP: torch-pruning's recipe is written for it"
        )


def _target(model: nn.Module, images: Dataset, options: PruningBenchOptions) -> int:
    """The MACs of agflow's plan under the budget, which every contender must meet."""
    statistics = calibrate(
        model,
        DataLoader(images, batch_size=1),
        batches=1,
        groups=MLPS_AND_HEADS,
    )
    return plan(
        statistics,
        macs=options.macs or MACS if options.pruning_ratio is None else None,
        pruning_ratio=options.pruning_ratio,
        allocation=Allocation(round_to=options.round_to),
        seed=options.seed,
    ).macs


def _in_process(options: PruningBenchOptions, contender: str, macs: int) -> dict:
    """One contender's row; where it cannot meet the budget, {"error": why}."""
    request = json.dumps({"options": asdict(options), "contender": contender, "macs": macs})
    command = [sys.executable, "-m", "agflow.bench.pruning", request]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InternalError(
            f"the process of contender {contender!r} ended with status {done.returncode}: "
            "its output stands above"
        )
    return json.loads(done.stdout.splitlines()[-1])


def main(request: str) -> None:
    """Print the row of one contender as JSON; ``request`` is a JSON object."""
    asked = json.loads(request)
    options = PruningBenchOptions(**{**asked["options"], "contenders": ()})
    try:
        found = _row(options, asked["contender"], asked["macs"])
    except errors.BudgetError as error:
        found = {"error": str(error)}
    print(json.dumps(found))


def _row(options: PruningBenchOptions, contender: str, macs: int) -> dict:
    model, preprocessing, _ = load_model(options.model, options.weights)
    images = images_by_use(options, preprocessing, model)
    for i in range(len(images["calibration"])):
        images["calibration"][i]  # decodes it
    test = DataLoader(images["test"], batch_size=TEST_BATCH)
    clock = machine.clock(torch.device("cpu"))
    begin = clock()
    prune_step = CONTENDERS[contender].step(model, macs, options.round_to, options.seed)
    prepared = clock()
    light, peak = peak_of(lambda: prune_step(images["calibration"]).eval())
    seconds = clock() - prepared
    row = {
        "macs": macs_of(light),
        "params": count_params(light),
        "search_seconds": prepared - begin,
        "seconds": seconds,
        "peak_memory": peak,
        "cut": asdict(evaluate(light, test)),
        "speed": [_speed(model, light, images["test"], batch, options.rounds) for batch in BATCHES],
    }
    if options.epochs:
        _finetune(light, model, images["tune"], options)
        row["tuned"] = asdict(evaluate(light, test))
    # slower in every round
    slower = [one["batch"] for one in row["speed"] if one["gain"]["max"] < 1]
    return {**row, "slower": slower}


def _finetune(
    light: nn.Module, dense: nn.Module, images: Dataset, options: PruningBenchOptions
) -> None:
    shuffled = DataLoader(
        images,
        batch_size=32,
        shuffle=True,
        generator=torch.Generator().manual_seed(options.seed),
    )
    finetune(
        light,
        shuffled,
        epochs=options.epochs,
        lr=options.lr,
        distillation=Distillation(dense),
        seed=options.seed,
    )


@torch.inference_mode()
def _speed(dense: nn.Module, light: nn.Module, images: Dataset, batch: int, rounds: int) -> dict:
    """Images per second of both models, timed in turn, and the light one's gain over the dense."""
    keep_freed()
    x = torch.stack([images[i % len(images)][0] for i in range(TIMED_IMAGES[batch])])
    pieces = x.split(batch)
    times = interleaved(
        {
            name: lambda model=model: [model(piece) for piece in pieces]
            for name, model in (("dense", dense), ("light", light))
        },
        rounds=rounds,
        clock=machine.clock(x.device),
    )
    return {
        "batch": batch,
        **{name: len(x) / t.median for name, t in times.items()},
        "gain": times["dense"].over(times["light"])._asdict(),
    }


def text(found: dict) -> str:
    """The figures as text."""
    options, dense = found["options"], Accuracy(**found["dense"])
    lines = [
        machine.sentence(found["machine"]),
        f"{found['model']}: {found['macs'] / 1e6:.1f} M MACs, {found['params'] / 1e6:.2f} M "
        f"parameters, {100 * dense.top1:.1f} % of {dense.images} test images; all pruned to "
        f"{found['target_macs'] / found['macs']:.3f}x MACs",
        f"{options['calibration']} calibration images, {options['epochs']} epochs of distillation "
        f"on {options['tune']} others, {found['threads']} thread(s)"
        f"{', CPU time' if found['threads'] == 1 else ''}; in brackets how many times as fast as "
        "the dense model",
        "",
        f"{'':<36} {'MACs':>6} {'params':>6} {'pruned %':>8} {'tuned %':>7} {'step s':>7} "
        f"{'MiB':>6}" + "".join(f"   batch {batch:<2} images/s" for batch in BATCHES),
    ]
    for row in found["contenders"]:
        lines += _lines(row, found)
    return "\n".join(lines)


def _lines(row: dict, found: dict) -> list[str]:
    if "error" in row:
        return [f"{row['name']:<36} not possible: {row['error']}"]
    tuned = f"{100 * row['tuned']['top1']:7.1f}" if "tuned" in row else f"{'–':>7}"
    speed = "".join(
        f"   {one['light']:8.1f} ({one['gain']['median']:5.2f}x)" for one in row["speed"]
    )
    macs, params = row["macs"] / found["macs"], row["params"] / found["params"]
    lines = [
        f"{row['name']:<36} {macs:5.3f}x {params:5.3f}x {100 * row['cut']['top1']:8.1f} {tuned} "
        f"{row['seconds']:7.1f} {row['peak_memory'] / 2**20:6.0f}{speed}"
    ]
    missed = row["macs"] / found["target_macs"] - 1
    if abs(missed) > 0.01:
        lines.append(f"    {100 * missed:+.1f} % off the MACs of the others")
    if row["slower"]:
        batches = " and ".join(map(str, row["slower"]))
        lines.append(f"    FAILURE: slower than the dense model at batch {batches}")
    return lines


def plot(measurements: Sequence[dict], *, ax: Axes | None = None) -> Axes:
    """Plot accuracy right after pruning, without any training, against MACs: a line a contender.

    Accuracy is top-1 among the classes that occur in the test images: over all classes of the model
    a repair on images of few classes would seem to gain, for it learns which ones occur.

    Parameters
    ----------
    measurements : several results of :func:`measure` for one model, each at a budget of its own;
        read are ``model``, ``macs``, ``target_macs`` and ``dense``, and ``name`` and ``cut`` of the
        contenders
    ax : matplotlib Axes, by default a new one
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, PercentFormatter

    if ax is None:
        ax = plt.subplots(figsize=(8, 4.2), layout="constrained")[1]
        ax.spines[["top", "right"]].set_visible(False)
    by_budget = sorted(measurements, key=lambda found: -found["target_macs"])
    dense = by_budget[0]["dense"]["among_present"]
    for name in dict.fromkeys(row["name"] for found in by_budget for row in found["contenders"]):
        points = [(1.0, dense)]
        for found in by_budget:
            share = found["target_macs"] / found["macs"]
            rows = [row for row in found["contenders"] if row["name"] == name and "cut" in row]
            points += [(share, row["cut"]["among_present"]) for row in rows]
        colour = next(_COLOURS[who] for who in _COLOURS if name.lower().startswith(who))
        ax.plot(*zip(*points, strict=True), color=colour, linewidth=2, marker="o", label=name)
        text = f" {100 * points[-1][1]:.1f} %"
        ax.text(*points[-1], text, va="center", fontsize=9, color=colour)
    label = f"dense model, {100 * dense:.1f} %"
    ax.axhline(dense, color=_COLOURS["dense"], linestyle="--", linewidth=1, label=label)
    ax.scatter(1.0, dense, color=_COLOURS["dense"], zorder=3, s=80)
    ax.set_xlim(1.03, by_budget[-1]["target_macs"] / by_budget[-1]["macs"] - 0.07)
    ax.set_ylim(-0.04, 1.08)
    ax.legend(frameon=False, loc="lower left")
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.1f}x"))
    ax.set_ylabel(f"top-1 among {by_budget[0]['dense']['classes']} classes, no training")
    ax.set_xlabel(f"{by_budget[0]['model']}, MACs per image as a ratio of the dense model")
    return ax


if __name__ == "__main__":
    main(sys.argv[1])
