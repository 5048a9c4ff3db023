"""What the ``agflow`` command asks of Python: one function a command, JSON text in and out."""

from __future__ import annotations

import functools
import json
import pathlib
import sys
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch.utils.data import DataLoader

from agflow.calibration.calibration import calibrate as calibrate_model
from agflow.calibration.options import CalibrationOptions
from agflow.cascade.predictions import predict as predict_both
from agflow.data.datasets import load_dataset
from agflow.data.leakage import sketch_images
from agflow.errors import DeviceError, InvalidValueError
from agflow.evaluation.accuracy import evaluate as evaluate_model
from agflow.exporting.models import CHECKED_IMAGES
from agflow.exporting.models import export as export_model
from agflow.models.expert import PLAN, expert_tuning, load_expert, save_expert
from agflow.models.load import load_model
from agflow.pruning.planning import Plan
from agflow.pruning.pruner import prune as prune_model
from agflow.recipes import cascade_design, pipeline, report
from agflow.recipes.results import RunOptions
from agflow.training.finetuning import finetune as finetune_model
from agflow.training.options import Checkpointing, Distillation, TrainingOptions


def _command(function: Callable[[dict], dict]) -> Callable[[str], str]:
    @functools.wraps(function)
    def entry(options: str) -> str:
        return json.dumps(function(json.loads(options)))

    return entry


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _images(options: dict, model, preprocessing, **how) -> DataLoader:
    dataset = load_dataset(
        options["data"],
        preprocessing=preprocessing,
        label=options.get("label"),
        limit=options.get("limit"),
        seed=options.get("seed", 0),
        classes=model.num_classes,
    )
    return DataLoader(dataset, batch_size=options["batch_size"], **how)


@_command
def run(options: dict) -> dict:
    """The whole road; see :func:`agflow.recipes.pipeline.run`."""
    known = RunOptions.__dataclass_fields__
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise InvalidValueError(
            f"run does not know the option {unknown[0]!r}; it knows {', '.join(known)}"
        )
    if options.get("macs") is None and options.get("pruning_ratio") is None:
        options["macs"] = "0.2"
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None
    }
    result = pipeline.run(RunOptions(**given), say=_say)
    return {
        "summary": report.summary(result),
        "output": result.options.output,
        **report.as_dict(result),
    }


@_command
def design(options: dict) -> dict:
    """A cascade designed, calibrated and judged; see :func:`agflow.recipes.cascade_design.design`."""
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
    if "macs" in given:
        given["macs"] = tuple(map(float, given["macs"]))
    found = cascade_design.design(cascade_design.DesignOptions(**given))
    return {
        "summary": found.summary,
        "output": found.options.output,
        "chosen": asdict(found.design.chosen),
        "verdict": found.router.verdict,
        "router": asdict(found.router),
        "judged": asdict(found.judgement),
        "images_per_second": {
            contender: timing.images_per_second for contender, timing in found.timings.items()
        },
    }


@_command
def calibrate(options: dict) -> dict:
    """Measure a model's statistics and write them as an Arrow file, with the raw tensors if ``dump`` names a folder."""
    model, preprocessing, name = load_model(options["model"], options.get("weights"))
    statistics = calibrate_model(
        model,
        _images(options, model, preprocessing),
        batches=options["batches"],
        groups=tuple(options["groups"]),
        image_size=options.get("image_size"),
        weight_gradients=options["weight_gradients"],
        options=CalibrationOptions(options["nonfinite"], options.get("dump")),
        seed=options["seed"],
    )
    statistics.save(options["output"])
    return {
        "summary": f"{options['output']}: {len(statistics)} units in {len(statistics.layers)} layers of {name}",
        "output": options["output"],
        "units": len(statistics),
        "metadata": statistics.metadata,
    }


@_command
def prune(options: dict) -> dict:
    """Cut and repair a model after a plan and save the light expert's folder."""
    model, preprocessing, name = load_model(options["model"], options.get("weights"))
    plan = Plan.load(options["plan"])
    loader = _images(options, model, preprocessing) if options["compensate"] != "none" else None
    light = prune_model(model, plan, loader, compensate=options["compensate"])
    save_expert(
        light,
        options["output"],
        plan,
        preprocessing=preprocessing,
        tuning=sketch_images(loader or []),
    )
    return {
        "summary": f"{options['output']}: {name} at {plan.macs / plan.model_macs:.3f}x of its MACs",
        "output": options["output"],
        "macs": plan.macs,
        "dense_macs": plan.model_macs,
    }


@_command
def predict(options: dict) -> dict:
    """Run both experts over the same images and write their predictions as an Arrow file."""
    heavy, preprocessing, _ = load_model(options["heavy"], options.get("weights"))
    folders = [options["light"]] + [options["heavy"]] * (
        options["heavy"] != "example" and pathlib.Path(options["heavy"]).is_dir()
    )
    tuning = " ".join(map(expert_tuning, folders)).strip()
    predictions = predict_both(
        load_expert(options["light"]),
        heavy,
        _images(options, heavy, preprocessing),
        features=options["features"],
        second_view=options["second_view"],
        tuning=tuning,
    )
    pathlib.Path(options["output"]).parent.mkdir(parents=True, exist_ok=True)
    predictions.save(options["output"])
    return {
        "summary": f"{options['output']}: {len(predictions)} images, light {100 * predictions.light_accuracy:.1f} %, "
        f"heavy {100 * predictions.heavy_accuracy:.1f} %",
        "output": options["output"],
        "images": len(predictions),
        "light_accuracy": predictions.light_accuracy,
        "heavy_accuracy": predictions.heavy_accuracy,
    }


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

    model, _, name = load_model(options["model"], options.get("weights"))
    try:
        model = model.to(options["device"])
    except (
        AssertionError,
        RuntimeError,
    ) as error:  # torch has a sentence for each way in which a device isn't there
        raise DeviceError(
            f"the model cannot be moved to device {options['device']!r} ({str(error).splitlines()[0]}): "
            "expected cpu or a device that torch sees"
        ) from error
    table = layers.measure(model, batch=options["batch"], rounds=options["rounds"])
    table.save(options["output"])
    return {
        "summary": f"{layers.text(table)}\n{options['output']}: {len(table)} sizes",
        "output": options["output"],
        "model": name,
        "sizes": len(table),
        "model_ms": table.model_ms,
        "metadata": table.metadata,
    }


@_command
def bench_pruning(options: dict) -> dict:
    """The whole prune step beside torch-pruning's; see :mod:`agflow.bench.pruning`."""
    from agflow.bench import pruning

    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in options.items()
    }
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
    heavy, preprocessing, _ = load_model(options["heavy"], options.get("weights"))
    light, plan = load_expert(options["light"]), pathlib.Path(options["light"]) / PLAN
    loader = _images(
        options,
        light,
        preprocessing,
        shuffle=True,
        generator=torch.Generator().manual_seed(options["seed"]),
    )
    history = finetune_model(
        light,
        loader,
        epochs=options["epochs"],
        lr=options["lr"],
        distillation=Distillation(heavy, share=options["distill"], features=options["features"]),
        checkpointing=Checkpointing(options["checkpoint"]) if options.get("checkpoint") else None,
        options=TrainingOptions(accumulate=options["accumulate"]),
        seed=options["seed"],
    )
    save_expert(
        light,
        options["output"],
        Plan.load(plan) if plan.exists() else None,
        preprocessing=preprocessing,
        tuning=sketch_images(loader, expert_tuning(options["light"])),
    )
    last = history[-1]
    return {
        "summary": f"{options['output']}: {len(history)} epochs; in the last, loss {last['loss']:.3f} and {100 * last['accuracy']:.1f} % of the training images right",
        "output": options["output"],
        "history": history,
    }


@_command
def evaluate(options: dict) -> dict:
    """Top-1 accuracy of a model."""
    model, preprocessing, name = load_model(options["model"], options.get("weights"))
    found = evaluate_model(model, _images(options, model, preprocessing))
    return {
        "summary": f"{name}: {100 * found.top1:.2f} % of {found.images} images are right "
        f"({100 * found.among_present:.2f} % among the {found.classes} classes that occur)",
        "model": name,
        **asdict(found),
    }


@_command
def export(options: dict) -> dict:
    """Write a model as ONNX or as torch's ExportedProgram, compared with torch first; see :func:`agflow.exporting.models.export`."""
    model, preprocessing, name = load_model(options["model"], options.get("weights"))
    images = None
    if options.get("data"):
        images, _ = next(
            iter(
                _images(
                    {**options, "limit": CHECKED_IMAGES, "batch_size": CHECKED_IMAGES},
                    model,
                    preprocessing,
                )
            )
        )
    difference = export_model(
        model,
        options["output"],
        format=options.get("format"),
        images=images,
        preprocessing=preprocessing,
        opset=options["opset"],
    )
    return {
        "summary": f"{options['output']}: {name}; its logits differ from torch's by {difference:.1e} of the largest",
        "output": options["output"],
        "difference": difference,
    }
