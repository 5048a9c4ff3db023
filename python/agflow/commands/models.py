"""Entry points of the ``agflow`` command: the steps on models."""

from __future__ import annotations

import pathlib
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from agflow._utils.files import check_file
from agflow._utils.first_rank import is_first_rank
from agflow._utils.folders import check_folder
from agflow.commands.entry import (
    command,
    computing_of,
    load_compared,
    load_light,
    load_role,
    loader_of,
    save_table,
    training_loaders,
)

if TYPE_CHECKING:
    from collections.abc import Sized

    from agflow.training import History


@command
def calibrate(options: dict) -> dict:
    """Measure a model's statistics, with ``dump`` its tensors, too, and write Arrow files."""
    from agflow.calibration import CalibrationOptions, calibrate

    check_file(options["output"], "output")
    computing = computing_of(options)
    model, preprocessing, name = load_role(options, "model")
    loader = loader_of(options, preprocessing, model, shared=True)
    with computing.precision():
        statistics = calibrate(
            computing.move(model),
            loader,
            batches=options["batches"],
            groups=tuple(options["groups"]),
            loss=options["loss"],
            image_size=options.get("image_size"),
            weight_gradients=options["weight_gradients"],
            options=CalibrationOptions(
                options["nonfinite"], options.get("dump"), seed=options["seed"]
            ),
        )
    if is_first_rank():
        save_table(statistics, options)
    return {
        "summary": f"{options['output']}: {len(statistics)} units in {len(statistics.layers)} "
        f"layers of {name}, {computing}",
        "output": options["output"],
        **asdict(computing),
        "units": len(statistics),
        "metadata": statistics.metadata,
    }


@command
def inspect_model(options: dict) -> dict:
    """Describe what can be pruned of a model, and what is kept and why."""
    from agflow.models import at_image_size, describe_groups
    from agflow.models.load import load_architecture

    model = load_architecture(options["model"])
    if options.get("image_size") is not None:
        model = at_image_size(model, options["image_size"])
    overview = describe_groups(model)
    return {"summary": str(overview), **overview.to_json()}


@command
def prune(options: dict) -> dict:
    """Prune and repair a model by a plan and save the light expert's folder."""
    from agflow.data import sketch_images
    from agflow.models import save_expert
    from agflow.models.expert import EXPERT_FOLDER
    from agflow.pruning import Plan, prune

    check_folder(options["output"], EXPERT_FOLDER)  # before the work, not after it
    computing = computing_of({**options, "dtype": None})  # float32 whatever was asked for
    model, preprocessing, name = load_role(options, "model")
    plan, compensate = Plan.load(options["plan"]), options["compensate"]
    loader = loader_of(options, preprocessing, model) if compensate != "none" else None
    light = prune(computing.move(model), plan, loader, compensate=compensate).cpu()
    tuning = sketch_images(loader) if loader else ""
    save_expert(light, options["output"], plan, preprocessing=preprocessing, tuning=tuning)
    return {
        "summary": f"{options['output']}: {name} at {plan.macs_share:.3f}x of its MACs, {computing}"
        + ("" if options.get("dtype") in (None, computing.dtype) else ", which a repair needs")
        + "".join(f"\n{line}" for line in plan.kept_channels),
        "output": options["output"],
        **asdict(computing),
        "macs": plan.macs,
        "dense_macs": plan.model_macs,
    }


@command
def finetune(options: dict) -> dict:
    """Train a light expert with the heavy one as its teacher and save it as an expert folder."""
    from agflow.data import sketch_images
    from agflow.models import known_classes, save_expert
    from agflow.models.expert import EXPERT_FOLDER, PLAN
    from agflow.pruning import Plan
    from agflow.training import Checkpointing, Distillation, TrainingOptions, finetune

    check_folder(options["output"], EXPERT_FOLDER)  # before the work, not after it
    computing = computing_of(options)
    heavy, preprocessing, _ = load_role(options, "heavy")
    light, tuning = load_light(options)
    plan = pathlib.Path(options["light"]) / PLAN
    loader, held_out = training_loaders(options, preprocessing, light)
    checkpoint = options.get("checkpoint")
    taught = {"share": options["distill"], "features": options["features"]}
    with computing.precision():
        history = finetune(
            computing.move(light),
            loader,
            epochs=options["epochs"],
            lr=options["lr"],
            distillation=Distillation(computing.move(heavy), **taught),
            held_out=held_out,
            checkpointing=Checkpointing(checkpoint) if checkpoint else None,
            options=TrainingOptions(accumulate=options["accumulate"]),
            seed=options["seed"],
        )
    for images in filter(None, (loader, held_out)):  # the held-out ones have chosen the weights
        tuning = sketch_images(images, tuning)
    if is_first_rank():
        kept = Plan.load(plan) if plan.exists() else None
        about = {"preprocessing": preprocessing, "tuning": tuning}
        save_expert(light.cpu(), options["output"], kept, **about)
    held = 0 if held_out is None else len(cast("Sized", held_out.dataset))
    headless = known_classes(light) is None
    return {
        "summary": f"{options['output']}: {_gain(history, held, headless)}; {computing}\n"
        f"next: agflow predict --light {options['output']} --heavy {options['heavy']} --data … "
        "(of images that have trained nothing)",
        "output": options["output"],
        **asdict(computing),
        "history": history,
        "held_out": {
            "images": held,
            "start": history.start,
            "measure": "cosine" if headless else "accuracy",
            "best": history.best_cosine if headless else history.best_accuracy,
            "best_epoch": history.best_epoch,
        },
    }


def _gain(history: History, held_out: int, headless: bool) -> str:
    """What a fine-tuning has brought, on the images that were held out."""
    say = _cosine if headless else _percent
    best = history.best_cosine if headless else history.best_accuracy
    start, last = history.start, history[-1]["cosine" if headless else "accuracy"]
    if start is None or best is None:
        return (
            f"{len(history)} epochs; in the last, loss {history[-1]['loss']:.3f} and "
            f"{say(last)} on the training images, none held out"
        )
    if not history.best_epoch:
        return (
            f"unchanged, no epoch was as good as the {say(start)} before on "
            f"{held_out} held-out images: try a lower --lr or more images"
        )
    return (
        f"{say(best)} on {held_out} held-out images, {say(start)} before, "
        f"by the weights of epoch {history.best_epoch} of {len(history)}"
    )


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} % correct"


def _cosine(cosine: float) -> str:
    return f"cosine {cosine:.4f} to the teacher's features"


@command
def evaluate(options: dict) -> dict:
    """Measure the top-1 accuracy of a model, and how far it agrees with the dense one."""
    from agflow.data.batches import image_batches
    from agflow.evaluation import evaluate, evaluate_agreement
    from agflow.models import head_of

    computing = computing_of(options)
    model, preprocessing, name, dense = load_compared(options)
    loader = loader_of(options, preprocessing, model, shared=True)
    accuracy = agreement = None
    with computing.precision():
        model = computing.move(model)
        if dense is None or head_of(model, next(image_batches(loader))).classes:
            accuracy = evaluate(model, loader)
        if dense is not None:
            agreement = evaluate_agreement(model, computing.move(dense), loader)
    lines = []
    if accuracy is not None:
        lines.append(
            f"{100 * accuracy.top1:.2f} % of {accuracy.images} images are correct "
            f"({100 * accuracy.among_present:.2f} % among the {accuracy.classes} classes that "
            "occur)"
        )
    if agreement is not None:
        lines.append(str(agreement))
    return {
        "summary": f"{name}: " + "\n".join(lines) + f", {computing}",
        "model": name,
        **asdict(computing),
        **({} if accuracy is None else asdict(accuracy)),
        **({} if agreement is None else {"agreement": asdict(agreement)}),
    }
