"""What the ``agflow`` command asks of Python: one function a command, JSON text in and out."""

from __future__ import annotations

import functools
import itertools
import json
import pathlib
import sys
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch.utils.data import DataLoader, Dataset, Subset

from agflow import data, report
from agflow import run as road
from agflow.calibration import calibrate as calibrate_model
from agflow.classes import only_classes
from agflow.deployment import CASCADE, save_cascade
from agflow.design import design_cascade
from agflow.errors import DeviceError, EmptyError, InvalidValueError
from agflow.evaluation import evaluate as evaluate_model
from agflow.evaluation import first_images, race
from agflow.experts import PLAN, expert_tuning, load_expert, save_expert
from agflow.exporting import CHECKED_IMAGES
from agflow.exporting import export as export_model
from agflow.fingerprints import sketch_images
from agflow.finetuning import finetune as finetune_model
from agflow.folders import appearing_whole
from agflow.judging import judge_cascade
from agflow.planning import Plan
from agflow.results import RunOptions
from agflow.routing import predict as predict_both
from agflow.run import TIMED_BATCH, TIMED_IMAGES
from agflow.surgery import prune as prune_model

TUNING_SHARE = 0.5  # of the images trains a design, where no others are held out
HELD_OUT_SHARES = (0.25, 0.35)  # of the images held out choose, and calibrate the threshold; the rest judges


def _command(function: Callable[[dict], dict]) -> Callable[[str], str]:
    @functools.wraps(function)
    def entry(options: str) -> str:
        return json.dumps(function(json.loads(options)))
    return entry


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _images(options: dict, model, preprocessing, **how) -> DataLoader:
    dataset = data.load(options["data"], preprocessing=preprocessing, label=options.get("label"), limit=options.get("limit"),
                        seed=options.get("seed", 0), classes=model.num_classes)
    return DataLoader(dataset, batch_size=options["batch_size"], **how)


@_command
def run(options: dict) -> dict:
    """The whole road; see :func:`agflow.run.run`."""
    known = RunOptions.__dataclass_fields__
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidValueError(f"run does not know the option {unknown[0]!r}; it knows {', '.join(known)}")
    if options.get("macs") is None and options.get("pruning_ratio") is None:
        options["macs"] = "0.35"
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items() if value is not None}
    result = road.run(RunOptions(**given), say=_say)
    return {"summary": report.summary(result), "output": result.options.output, **report.as_dict(result)}


@_command
def design(options: dict) -> dict:
    """Design a cascade, calibrate its threshold, judge it, each on images of its own, and fill a cascade folder."""
    if not 0 < options["tolerance"] < 1:  # before the training rather than after it
        raise InvalidValueError(f"tolerance is {options['tolerance']:g}; it is the accuracy that may be lost, above 0 and below 1, such as 0.005")
    heavy, preprocessing, name = data.model_from(options["model"], options.get("weights"))
    known, only = heavy.num_classes, options["classes"] or None
    if only:
        heavy = only_classes(heavy, only)
    load = lambda spec: data.load(spec, preprocessing=preprocessing, label=options.get("label"), limit=options.get("limit"), seed=options["seed"],
                                  classes=known, only=only)
    images, other = load(options["data"]), options.get("held_out")
    tuning, held_out = (images, load(other)) if other else _parts(images, (TUNING_SHARE,), options["seed"])
    batches = lambda part: DataLoader(part, batch_size=options["batch_size"])
    tuning, choosing, calibrating, judging = map(batches, (tuning, *_parts(held_out, HELD_OUT_SHARES, options["seed"])))
    with appearing_whole(options["output"], "a cascade folder", CASCADE) as folder:
        made = design_cascade(heavy, tuning, choosing, tolerance=options["tolerance"], image_sizes=options["image_sizes"] or None,
                              macs=[float(share) for share in options["macs"]], groups=options["groups"], shared_blocks=options["shared_blocks"],
                              **{key: options[key] for key in ("answers", "epochs", "lr", "cost", "seed")})
        predictions = made.predict(calibrating)
        router = made.calibrate(predictions, confidence=options["confidence"])
        judged, cascade = made.predict(judging, router), made.cascade(router)
        save_cascade(cascade, folder, preprocessing=preprocessing, tuning=made.tuning)
        if made.plan is not None:
            made.plan.save(folder / PLAN)
        for file, table in (("predictions-threshold", predictions), ("predictions", judged), ("frontier", made.frontier)):
            table.save(folder / f"{file}.arrow")
        (folder / "frontier.md").write_text(made.frontier.markdown())
    judgement = judge_cascade(cascade, judging, judged)
    timings = race({"heavy": made.heavy, "light": made.light, "cascade": cascade}, first_images(judging.dataset, TIMED_IMAGES), batch=TIMED_BATCH)
    speeds = ", ".join(f"{contender} {timing.images_per_second:.1f} ({timing.spread[0]:.1f} to {timing.spread[1]:.1f})" for contender, timing in timings.items())
    return {"summary": f"{made}\n{options['output']}: {name} as a cascade. {router.verdict} on {router.samples} images: {router.rule}, and the answers are then of {router.answers}\n"
                       f"on {len(judged)} other images: {judgement}\n"
                       f"images/s in batches of {TIMED_BATCH}, median (slowest to fastest round): {speeds}",
            "output": options["output"], "chosen": asdict(made.chosen), "verdict": router.verdict, "router": asdict(router), "judged": asdict(judgement),
            "images_per_second": {contender: timing.images_per_second for contender, timing in timings.items()}}


def _parts(images: Dataset, shares: tuple[float, ...], seed: int) -> list[Subset]:
    """The images in seeded random order, dealt out by ``shares``; the last part gets what they leave."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    ends = [round(len(order) * share) for share in itertools.accumulate(shares)]
    parts = [Subset(images, order[start:end]) for start, end in itertools.pairwise([0, *ends, len(order)])]
    if not all(parts):
        raise EmptyError(f"there are {len(order)} images, too few for {len(parts)} parts: those that train, choose, calibrate the threshold and judge differ")
    return parts


@_command
def calibrate(options: dict) -> dict:
    """Measure a model's statistics and write them as an Arrow file, with the raw tensors if ``dump`` names a folder."""
    model, preprocessing, name = data.model_from(options["model"], options.get("weights"))
    statistics = calibrate_model(model, _images(options, model, preprocessing), batches=options["batches"],
                                 groups=tuple(options["groups"]), weight_gradients=options["weight_gradients"],
                                 image_size=options.get("image_size"), nonfinite=options["nonfinite"], dump=options.get("dump"), seed=options["seed"])
    statistics.save(options["output"])
    return {"summary": f"{options['output']}: {len(statistics)} units in {len(statistics.layers)} layers of {name}",
            "output": options["output"], "units": len(statistics), "metadata": statistics.metadata}


@_command
def prune(options: dict) -> dict:
    """Cut and repair a model after a plan and save the light expert's folder."""
    model, preprocessing, name = data.model_from(options["model"], options.get("weights"))
    plan = Plan.load(options["plan"])
    loader = _images(options, model, preprocessing) if options["compensate"] != "none" else None
    light = prune_model(model, plan, loader, compensate=options["compensate"])
    save_expert(light, options["output"], plan, preprocessing=preprocessing, tuning=sketch_images(loader or []))
    return {"summary": f"{options['output']}: {name} at {plan.macs / plan.model_macs:.3f}x of its MACs",
            "output": options["output"], "macs": plan.macs, "dense_macs": plan.model_macs}


@_command
def predict(options: dict) -> dict:
    """Run both experts over the same images and write their predictions as an Arrow file."""
    heavy, preprocessing, _ = data.model_from(options["heavy"], options.get("weights"))
    folders = [options["light"]] + [options["heavy"]] * (options["heavy"] != "example" and pathlib.Path(options["heavy"]).is_dir())
    tuning = " ".join(map(expert_tuning, folders)).strip()
    predictions = predict_both(load_expert(options["light"]), heavy, _images(options, heavy, preprocessing), features=options["features"],
                               second_look=options["second_look"], tuning=tuning)
    pathlib.Path(options["output"]).parent.mkdir(parents=True, exist_ok=True)
    predictions.save(options["output"])
    return {"summary": f"{options['output']}: {len(predictions)} images, light {100 * predictions.light_accuracy:.1f} %, "
                       f"heavy {100 * predictions.heavy_accuracy:.1f} %",
            "output": options["output"], "images": len(predictions), "light_accuracy": predictions.light_accuracy,
            "heavy_accuracy": predictions.heavy_accuracy}


@_command
def bench_core(options: dict) -> dict:
    """The statistics pass, top-k and a call across the bridge beside their peers; see :mod:`agflow.bench.core`."""
    from agflow.bench import core  # the compiler of torch takes a while to load
    found = core.measure(**options)
    return {"summary": core.text(found), **found}


@_command
def bench_calibration(options: dict) -> dict:
    """A calibration over the bare forward and backward pass; see :mod:`agflow.bench.calibration`."""
    from agflow.bench import calibration
    found = calibration.measure(**options)
    return {"summary": calibration.text(found), **found}


@_command
def bench_layers(options: dict) -> dict:
    """The latency table of a model, written as an Arrow file; see :mod:`agflow.bench.layers`."""
    from agflow.bench import layers
    model, _, name = data.model_from(options["model"], options.get("weights"))
    try:
        model = model.to(options["device"])
    except (AssertionError, RuntimeError) as error:  # torch has a sentence for each way in which a device isn't there
        raise DeviceError(f"the model cannot be moved to device {options['device']!r} ({str(error).splitlines()[0]}): "
                          "expected cpu or a device that torch sees") from error
    table = layers.measure(model, batch=options["batch"], rounds=options["rounds"])
    table.save(options["output"])
    return {"summary": f"{layers.text(table)}\n{options['output']}: {len(table)} sizes", "output": options["output"], "model": name,
            "sizes": len(table), "model_ms": table.model_ms, "metadata": table.metadata}


@_command
def bench_pruning(options: dict) -> dict:
    """The whole prune step beside torch-pruning's; see :mod:`agflow.bench.pruning`."""
    from agflow.bench import pruning
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    found = pruning.measure(pruning.Options(**given), say=_say)
    return {"summary": pruning.text(found), **found}


@_command
def bench_cascade(options: dict) -> dict:
    """A cascade over its two bare passes, and the images a second of either way; see :mod:`agflow.bench.cascade`."""
    from agflow.bench import cascade
    found = cascade.measure(**{**options, "batch_sizes": tuple(options["batch_sizes"])})
    return {"summary": cascade.text(found), **found}


@_command
def bench_bottleneck(options: dict) -> dict:
    """The dynamic range of the AGF signal, and AGF as a router; see :mod:`agflow.bench.bottleneck`."""
    from agflow.bench import bottleneck
    found = bottleneck.measure(bottleneck.Options(**options), say=_say)
    return {"summary": bottleneck.text(found), **found}


@_command
def finetune(options: dict) -> dict:
    """Train a light expert with the heavy one as its teacher and save it as an expert folder."""
    heavy, preprocessing, _ = data.model_from(options["heavy"], options.get("weights"))
    light, plan = load_expert(options["light"]), pathlib.Path(options["light"]) / PLAN
    loader = _images(options, light, preprocessing, shuffle=True, generator=torch.Generator().manual_seed(options["seed"]))
    history = finetune_model(light, loader, teacher=heavy, checkpoint=options.get("checkpoint"),
                             **{name: options[name] for name in ("epochs", "lr", "distill", "features", "accumulate", "seed")})
    save_expert(light, options["output"], Plan.load(plan) if plan.exists() else None, preprocessing=preprocessing,
                tuning=sketch_images(loader, expert_tuning(options["light"])))
    last = history[-1]
    return {"summary": f"{options['output']}: {len(history)} epochs; in the last, loss {last['loss']:.3f} and {100 * last['accuracy']:.1f} % of the training images right",
            "output": options["output"], "history": history}


@_command
def evaluate(options: dict) -> dict:
    """Top-1 accuracy of a model."""
    model, preprocessing, name = data.model_from(options["model"], options.get("weights"))
    found = evaluate_model(model, _images(options, model, preprocessing))
    return {"summary": f"{name}: {100 * found.top1:.2f} % of {found.images} images are right "
                       f"({100 * found.among_present:.2f} % among the {found.classes} classes that occur)",
            "model": name, **asdict(found)}


@_command
def export(options: dict) -> dict:
    """Write a model as ONNX or as torch's ExportedProgram, compared with torch first; see :func:`agflow.exporting.export`."""
    model, preprocessing, name = data.model_from(options["model"], options.get("weights"))
    images = None
    if options.get("data"):
        images, _ = next(iter(_images({**options, "limit": CHECKED_IMAGES, "batch_size": CHECKED_IMAGES}, model, preprocessing)))
    difference = export_model(model, options["output"], format=options.get("format"), images=images, preprocessing=preprocessing, opset=options["opset"])
    return {"summary": f"{options['output']}: {name}; its logits differ from torch's by {difference:.1e} of the largest",
            "output": options["output"], "difference": difference}
