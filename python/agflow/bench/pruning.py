"""``agflow bench pruning``: the whole prune step beside torch-pruning's, at the same MACs, on the same images.

Each contender has a process of its own (``python -m agflow.bench.pruning REQUEST``), in which it prunes, is judged, fine-tuned,
judged again and timed in turn with the uncut model.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import torch
from timm.layers import Attention, Mlp
from torch import nn
from torch.utils.data import DataLoader, Dataset

from agflow import errors
from agflow.bench import machine
from agflow.bench.contenders import AGFLOW, CONTENDERS, chosen, macs_of
from agflow.bench.memory import keep_freed, peak_of
from agflow.calibration.calibration import calibrate
from agflow.data import datasets as data
from agflow.data.datasets import load_dataset
from agflow.errors import InternalError, InvalidValueError, UnsupportedModelError
from agflow.evaluation.accuracy import Accuracy, evaluate
from agflow.evaluation.interleaved import interleaved
from agflow.models import adapter_for, count_params
from agflow.models.load import load_model
from agflow.pruning.allocation import Allocation
from agflow.pruning.planning import plan
from agflow.training.finetuning import finetune
from agflow.training.options import Distillation

BATCHES = (1, 32)
TIMED_IMAGES = {1: 8, 32: 32}
JUDGED_BATCH = 32
MACS = "0.6"


@dataclass(frozen=True)
class Options:
    """Of one comparison; the command's flags have the same names.

    Attributes
    ----------
    data : its first ``calibration`` images serve the prune step, the next ``tune`` ones the fine-tuning
    eval : judges, ``eval_limit`` images of it
    """

    model: str = "example"
    weights: str | None = None
    data: str = "example:train"
    eval: str = "example:test"
    label: str | None = None
    macs: str | None = None
    pruning_ratio: float | None = None
    contenders: tuple[str, ...] = ()
    calibration: int = 256
    tune: int = 1500
    eval_limit: int | None = 1000
    epochs: int = 1
    lr: float = 3e-4
    round_to: int = 8
    rounds: int = 5
    seed: int = 0


def measure(options: Options, say: Callable[[str], None] = print) -> dict:
    """Every figure of ``agflow bench pruning``, ready for JSON: a row a contender.

    All contenders get as near to the same MACs as they can (those of agflow's plan), the same images, and the same fine-tuning
    with the uncut model as the teacher. Seconds are the CPU's where torch has one thread, else the wall's.

    Raises
    ------
    InvalidValueError
        An unknown contender, two budgets, fewer than one round or image.
    UnsupportedModelError
        The model is no plain Vision Transformer of timm's, which torch-pruning's recipe is written for.
    """
    names = chosen(options.contenders)
    _check(options)
    model, preprocessing, name = load_model(options.model, options.weights)
    _check_model(model)
    macs = _target(model, _images(options, preprocessing, model)["calibration"], options)
    judge = _images(options, preprocessing, model)["judge"]
    dense = evaluate(model, DataLoader(judge, batch_size=JUDGED_BATCH))
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


def _check(options: Options) -> None:
    if min(options.calibration, options.tune, options.rounds) < 1 or options.epochs < 0:
        raise InvalidValueError(
            f"calibration is {options.calibration}, tune {options.tune}, rounds {options.rounds} and epochs {options.epochs}, "
            "expected whole numbers from 1, epochs from 0"
        )
    if options.macs is not None and options.pruning_ratio is not None:
        raise InvalidValueError("macs and pruning_ratio were both given: give one budget")


def _check_model(model: nn.Module) -> None:
    adapter = adapter_for(model)
    if adapter.family != "timm_vit" or any(
        type(block.attn) is not Attention or type(block.mlp) is not Mlp for block in model.blocks
    ):
        raise UnsupportedModelError(
            f"{type(model).__name__} is not supported by this comparison, expected an uncut VisionTransformer of timm's "
            "with a plain MLP: torch-pruning's recipe is written for it"
        )


def _target(model: nn.Module, images: Dataset, options: Options) -> int:
    """The MACs of agflow's plan under the budget, which every contender is held to."""
    statistics = calibrate(
        model,
        DataLoader(images, batch_size=1),
        batches=1,
        groups=CONTENDERS[AGFLOW].groups,
    )
    budget = (
        {"pruning_ratio": options.pruning_ratio}
        if options.pruning_ratio is not None
        else {"macs": options.macs or MACS}
    )
    return plan(
        statistics, **budget, allocation=Allocation(round_to=options.round_to), seed=options.seed
    ).macs


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


def _in_process(options: Options, contender: str, macs: int) -> dict:
    """One contender's row; where it cannot meet the budget, {"error": why}."""
    request = json.dumps({"options": asdict(options), "contender": contender, "macs": macs})
    done = subprocess.run(
        [sys.executable, "-m", "agflow.bench.pruning", request], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise InternalError(
            f"the process of contender {contender!r} ended with status {done.returncode}: what it said stands above"
        )
    return json.loads(done.stdout.splitlines()[-1])


def main(request: str) -> None:
    asked = json.loads(request)
    options = Options(**{**asked["options"], "contenders": ()})
    try:
        found = _row(options, asked["contender"], asked["macs"])
    except errors.BudgetError as error:
        found = {"error": str(error)}
    print(json.dumps(found))


def _row(options: Options, contender: str, macs: int) -> dict:
    model, preprocessing, _ = load_model(options.model, options.weights)
    images = _images(options, preprocessing, model)
    for i in range(len(images["calibration"])):
        images["calibration"][i]  # decodes it
    clock = machine.clock(torch.device("cpu"))
    begin = clock()
    cut = CONTENDERS[contender].cut(model, macs, options.round_to, options.seed)
    prepared = clock()
    light, peak = peak_of(lambda: cut(images["calibration"]).eval())
    seconds = clock() - prepared
    judge = lambda: asdict(evaluate(light, DataLoader(images["judge"], batch_size=JUDGED_BATCH)))
    row = {
        "macs": macs_of(light),
        "params": count_params(light),
        "search_seconds": prepared - begin,
        "seconds": seconds,
        "peak_memory": peak,
        "cut": judge(),
        "speed": [
            _speed(model, light, images["judge"], batch, options.rounds) for batch in BATCHES
        ],
    }
    if options.epochs:
        shuffled = DataLoader(
            images["tune"],
            batch_size=32,
            shuffle=True,
            generator=torch.Generator().manual_seed(options.seed),
        )
        finetune(
            light,
            shuffled,
            epochs=options.epochs,
            lr=options.lr,
            distillation=Distillation(model),
            seed=options.seed,
        )
        row["tuned"] = judge()
    return {
        **row,
        "slower": [one["batch"] for one in row["speed"] if one["gain"]["max"] < 1],
    }  # in every round


@torch.inference_mode()
def _speed(dense: nn.Module, light: nn.Module, images: Dataset, batch: int, rounds: int) -> dict:
    """Images per second of both, timed in turn, and how many times as fast as the uncut model the cut one is."""
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
    """The figures for people."""
    options, dense = found["options"], Accuracy(**found["dense"])
    lines = [
        machine.sentence(found["machine"]),
        f"{found['model']}: {found['macs'] / 1e6:.1f} M MACs, {found['params'] / 1e6:.2f} M parameters, {100 * dense.top1:.1f} % of {dense.images} judging "
        f"images; all cut to {found['target_macs'] / found['macs']:.3f}x MACs",
        f"{options['calibration']} calibration images, {options['epochs']} epochs of distillation on {options['tune']} others, "
        f"{found['threads']} thread(s){', CPU time' if found['threads'] == 1 else ''}; in brackets how many times as fast as the uncut model",
        "",
        f"{'':<36} {'MACs':>6} {'params':>6} {'cut %':>6} {'tuned %':>7} {'step s':>7} {'MiB':>6}"
        + "".join(f"   batch {batch:<2} images/s" for batch in BATCHES),
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
    lines = [
        f"{row['name']:<36} {row['macs'] / found['macs']:5.3f}x {row['params'] / found['params']:5.3f}x {100 * row['cut']['top1']:6.1f} {tuned} "
        f"{row['seconds']:7.1f} {row['peak_memory'] / 2**20:6.0f}{speed}"
    ]
    missed = row["macs"] / found["target_macs"] - 1
    if abs(missed) > 0.01:
        lines.append(f"    {100 * missed:+.1f} % off the MACs of the others")
    if row["slower"]:
        lines.append(
            f"    FAILURE: slower than the uncut model at batch {' and '.join(map(str, row['slower']))}"
        )
    return lines


if __name__ == "__main__":
    main(sys.argv[1])
