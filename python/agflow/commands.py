"""Entry points of the ``agflow`` command: one function a command, JSON text in and out.

The keys of the options are the command's flags with underscores, null where a flag was not given.
Each function imports what it needs, so that a command loads nothing else.
"""

from __future__ import annotations

import functools
import json
import pathlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agflow._utils.files import check_file
from agflow._utils.first_rank import is_first_rank
from agflow._utils.folders import check_folder
from agflow.errors import InvalidValueError

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import DataLoader

    from agflow._utils.computing import Computing
    from agflow.data.preprocessing import Preprocessing


def _command(function: Callable[[dict], dict]) -> Callable[[str], str]:
    @functools.wraps(function)
    def entry(options: str) -> str:
        result = function(json.loads(options))
        return json.dumps(result if is_first_rank() else None)

    return entry


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """The options that have a value; lists as tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in options.items()
        if value is not None
    }


def _computing(options: dict) -> Computing:
    """Where the models of a command compute; a device that is not there is refused first."""
    from agflow._utils.computing import Computing

    return Computing.of_process(options.get("device"), options.get("dtype"))


def _load(options: dict, role: str) -> tuple[nn.Module, Preprocessing, str]:
    """The model that the option ``role`` names, with the weights and normalisation given."""
    from agflow.models import load_model

    given = {name: options.get(name) or None for name in ("mean", "std")}
    return load_model(options[role], options.get("weights"), **given)


def _images(
    options: dict,
    preprocessing: Preprocessing,
    labels_of: nn.Module | None,
    *,
    shuffled: bool = False,
    shared: bool = False,
) -> DataLoader:
    """The images of a command; without a model that has their labels these are not looked at."""
    from agflow.data import DataOptions, image_loader, load_dataset
    from agflow.models import known_classes

    label, column, class_map = map(options.get, ("label", "image_column", "class_map"))
    return image_loader(
        load_dataset(
            options["data"],
            preprocessing=preprocessing,
            limit=options.get("limit"),
            seed=options["seed"],
            classes=known_classes(labels_of) if labels_of is not None else None,
            options=DataOptions(label, column, class_map),
        ),
        options["batch_size"],
        workers=options.get("workers") or 0,
        shuffle_seed=options["seed"] if shuffled else None,
        shared=shared,
    )


@_command
def run(options: dict) -> dict:
    """The whole pipeline; see :func:`agflow.recipes.run`."""
    from agflow._utils.defaults import default
    from agflow.recipes import pipeline, report
    from agflow.recipes.results import RunOptions

    known = RunOptions.__dataclass_fields__
    for name in sorted(set(options) - set(known)):
        raise InvalidValueError(f"run does not know the option {name!r}; it knows {[*known]}")
    given = _given(options)
    if "macs" not in given and "pruning_ratio" not in given:
        given["macs"] = default("run", "macs")
    result = pipeline.run(RunOptions(**given), say=_say)
    return {"summary": result.summary, "output": result.options.output, **report.as_dict(result)}


@_command
def design(options: dict) -> dict:
    """Design, calibrate and evaluate a cascade; see :func:`agflow.recipes.design`."""
    from agflow.recipes import cascade_design

    given = _given(options)
    if "macs" in given:
        given["macs"] = tuple(map(float, given["macs"]))  # JSON writes 1.0 as 1
    found = cascade_design.design(cascade_design.DesignOptions(**given))
    return {
        "summary": found.summary,
        "output": found.options.output,
        "chosen": asdict(found.design.chosen),
        "verdict": found.router.verdict,
        "router": asdict(found.router),
        "evaluated": asdict(found.evaluation),
        "images_per_second": {
            contender: timing.images_per_second for contender, timing in found.timings.items()
        },
    }


@_command
def calibrate(options: dict) -> dict:
    """Measure a model's statistics, with ``dump`` its tensors, too, and write Arrow files."""
    from agflow.calibration import CalibrationOptions, calibrate

    check_file(options["output"], "output")
    computing = _computing(options)
    model, preprocessing, name = _load(options, "model")
    loader = _images(options, preprocessing, model, shared=True)
    with computing.precision():
        statistics = calibrate(
            computing.move(model),
            loader,
            batches=options["batches"],
            groups=tuple(options["groups"]),
            image_size=options.get("image_size"),
            weight_gradients=options["weight_gradients"],
            options=CalibrationOptions(options["nonfinite"], options.get("dump")),
            seed=options["seed"],
        )
    if is_first_rank():
        statistics.save(options["output"])
    return {
        "summary": f"{options['output']}: {len(statistics)} units in {len(statistics.layers)} "
        f"layers of {name}, {computing}",
        "output": options["output"],
        **asdict(computing),
        "units": len(statistics),
        "metadata": statistics.metadata,
    }


@_command
def prune(options: dict) -> dict:
    """Prune and repair a model by a plan and save the light expert's folder."""
    from agflow.data import sketch_images
    from agflow.models import save_expert
    from agflow.models.expert import EXPERT_FOLDER
    from agflow.pruning import Plan, prune

    check_folder(options["output"], EXPERT_FOLDER)  # before the work, not after it
    computing = _computing({**options, "dtype": None})  # float32 whatever was asked for
    model, preprocessing, name = _load(options, "model")
    plan, compensate = Plan.load(options["plan"]), options["compensate"]
    loader = _images(options, preprocessing, model) if compensate != "none" else None
    light = prune(computing.move(model), plan, loader, compensate=compensate).cpu()
    tuning = sketch_images(loader) if loader else ""
    save_expert(light, options["output"], plan, preprocessing=preprocessing, tuning=tuning)
    return {
        "summary": f"{options['output']}: {name} at {plan.macs_share:.3f}x of its MACs, {computing}"
        + ("" if options.get("dtype") in (None, computing.dtype) else ", which a repair needs"),
        "output": options["output"],
        **asdict(computing),
        "macs": plan.macs,
        "dense_macs": plan.model_macs,
    }


@_command
def predict(options: dict) -> dict:
    """Run both experts over the same images and write their predictions as an Arrow file."""
    from agflow.cascade import predict
    from agflow.models import expert_tuning, load_expert

    check_file(options["output"], "output")
    computing = _computing(options)
    heavy, preprocessing, _ = _load(options, "heavy")
    folders = [options["light"]]
    if options["heavy"] != "example" and pathlib.Path(options["heavy"]).is_dir():
        folders.append(options["heavy"])
    loader = _images(options, preprocessing, heavy, shared=True)
    with computing.precision():
        predictions = predict(
            computing.move(load_expert(options["light"])),
            computing.move(heavy),
            loader,
            features=options["features"],
            second_view=options["second_view"],
            tuning=" ".join(map(expert_tuning, folders)).strip(),
        )
    pathlib.Path(options["output"]).parent.mkdir(parents=True, exist_ok=True)
    if is_first_rank():
        predictions.save(options["output"])
    light, heavy_accuracy = predictions.light_accuracy, predictions.heavy_accuracy
    return {
        "summary": f"{options['output']}: {len(predictions)} images, light {100 * light:.1f} %, "
        f"heavy {100 * heavy_accuracy:.1f} %, {computing}",
        "output": options["output"],
        **asdict(computing),
        "images": len(predictions),
        "light_accuracy": light,
        "heavy_accuracy": heavy_accuracy,
    }


@_command
def finetune(options: dict) -> dict:
    """Train a light expert with the heavy one as its teacher and save it as an expert folder."""
    from agflow.data import sketch_images
    from agflow.models import expert_tuning, load_expert, save_expert
    from agflow.models.expert import EXPERT_FOLDER, PLAN
    from agflow.pruning import Plan
    from agflow.training import Checkpointing, Distillation, TrainingOptions, finetune

    check_folder(options["output"], EXPERT_FOLDER)  # before the work, not after it
    computing = _computing(options)
    heavy, preprocessing, _ = _load(options, "heavy")
    light, plan = load_expert(options["light"]), pathlib.Path(options["light"]) / PLAN
    loader = _images(options, preprocessing, light, shuffled=True, shared=True)
    checkpoint = options.get("checkpoint")
    taught = {"share": options["distill"], "features": options["features"]}
    with computing.precision():
        history = finetune(
            computing.move(light),
            loader,
            epochs=options["epochs"],
            lr=options["lr"],
            distillation=Distillation(computing.move(heavy), **taught),
            checkpointing=Checkpointing(checkpoint) if checkpoint else None,
            options=TrainingOptions(accumulate=options["accumulate"]),
            seed=options["seed"],
        )
    sketch = sketch_images(loader, expert_tuning(options["light"]))
    if is_first_rank():
        kept = Plan.load(plan) if plan.exists() else None
        about = {"preprocessing": preprocessing, "tuning": sketch}
        save_expert(light.cpu(), options["output"], kept, **about)
    last = history[-1]
    return {
        "summary": f"{options['output']}: {len(history)} epochs; in the last, loss "
        f"{last['loss']:.3f} and {100 * last['accuracy']:.1f} % of the training images correct; "
        f"{computing}",
        "output": options["output"],
        **asdict(computing),
        "history": history,
    }


@_command
def evaluate(options: dict) -> dict:
    """Measure the top-1 accuracy of a model."""
    from agflow.evaluation import evaluate

    computing = _computing(options)
    model, preprocessing, name = _load(options, "model")
    with computing.precision():
        found = evaluate(computing.move(model), _images(options, preprocessing, model, shared=True))
    return {
        "summary": f"{name}: {100 * found.top1:.2f} % of {found.images} images are correct "
        f"({100 * found.among_present:.2f} % among the {found.classes} classes that occur), "
        f"{computing}",
        "model": name,
        **asdict(computing),
        **asdict(found),
    }


@_command
def export(options: dict) -> dict:
    """Write a model as ONNX or as torch's ExportedProgram; see :func:`agflow.export`."""
    from agflow.exporting.models import CHECKED_IMAGES, export

    check_file(options["output"], "output")
    model, preprocessing, name = _load(options, "model")
    images = None
    if options.get("data"):
        few = {**options, "limit": CHECKED_IMAGES, "batch_size": CHECKED_IMAGES}
        images, _ = next(iter(_images(few, preprocessing, None)))
    difference = export(
        model,
        options["output"],
        format=options.get("format"),
        images=images,
        preprocessing=preprocessing,
        opset=options["opset"],
    )
    return {
        "summary": f"{options['output']}: {name}; its logits differ from torch's by "
        f"{difference:.1e} of the largest",
        "output": options["output"],
        "difference": difference,
    }


@_command
def bench_core(options: dict) -> dict:
    """The statistics pass, top-k and a bridge call; see :mod:`agflow.bench.core`."""
    from agflow.bench import core

    found = core.measure(**_given(options))
    return {"summary": core.text(found), **found}


@_command
def bench_calibration(options: dict) -> dict:
    """A calibration over its bare passes; see :mod:`agflow.bench.calibration`."""
    from agflow.bench import calibration

    found = calibration.measure(**_given(options))
    return {"summary": calibration.text(found), **found}


@_command
def bench_layers(options: dict) -> dict:
    """The latency table of a model, written as an Arrow file; see :mod:`agflow.bench.layers`."""
    from agflow.bench import layers

    check_file(options["output"], "output")
    computing = _computing(options)
    model, _, name = _load(options, "model")
    table = layers.measure(computing.move(model), batch=options["batch"], rounds=options["rounds"])
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

    found = pruning.measure(pruning.PruningBenchOptions(**_given(options)), say=_say)
    return {"summary": pruning.text(found), **found}


@_command
def bench_cascade(options: dict) -> dict:
    """A cascade over its two bare passes; see :mod:`agflow.bench.cascade`."""
    from agflow.bench import cascade

    found = cascade.measure(**_given(options))
    return {"summary": cascade.text(found), **found}


@_command
def bench_bottleneck(options: dict) -> dict:
    """AGF's signal during training and AGF as a router; see :mod:`agflow.bench.bottleneck`."""
    from agflow.bench import bottleneck

    found = bottleneck.measure(bottleneck.BottleneckBenchOptions(**_given(options)), say=_say)
    return {"summary": bottleneck.text(found), **found}
