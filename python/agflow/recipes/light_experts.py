"""How a run makes a light expert of a plan: prune, repair, fine-tune."""

from __future__ import annotations

import pathlib
from dataclasses import asdict

from torch import nn

from agflow._utils.defaults import default
from agflow._utils.json_file import Keys, read_json, write_json
from agflow.evaluation.accuracy import Accuracy, evaluate
from agflow.models.expert import load_expert, save_expert
from agflow.pruning.planning import Plan
from agflow.pruning.pruner import prune
from agflow.recipes.results import Stages
from agflow.recipes.run_folder import STEPS_FOLDER, RunFolder
from agflow.recipes.run_parts import RunParts
from agflow.training.checkpoint_file import remove_if_damaged
from agflow.training.features import has_last_block
from agflow.training.finetuning import finetune
from agflow.training.options import Checkpointing, Distillation

TEACHER_SHARE = default("finetune", "distill")  # of the loss
CONTROL_EPOCHS = default("run", "control_epochs")
TOKENS_WEIGHT = default("run", "features")  # of the error of the last block's features
STREAMS = ("embed", "stage")  # groups whose cut makes the last block narrower

_PRUNED, _PRUNED_FILE, _CHECKPOINT = "pruned", "pruned.json", "checkpoint"
_PRUNED_KEYS = {4: Keys(("cut", "repaired"))}


def make_expert(
    parts: RunParts, plan_: Plan, folder: RunFolder, own: pathlib.Path, *, epochs: int
) -> tuple[nn.Module, Stages]:
    """Prune the heavy expert by a plan, repair and fine-tune it, with its accuracies on the way.

    The accuracies of the criterion and of the control are compared after equally short
    fine-tunings, each with a schedule of its own, since the control serves for nothing else. A
    longer one begins with the repaired expert again.

    Parameters
    ----------
    own : the folder of the step under way, for what it goes on from after a kill
    epochs : of the fine-tuning of the expert that is returned
    """
    name = own.name
    pruned = f"{STEPS_FOLDER}/{name}/{_PRUNED}"
    folder.step(
        f"{name}/prune",
        "",
        (f"{pruned}/", f"{pruned}.json"),
        lambda _: _prune(parts, plan_, own),
    )

    def tuned(epochs: int) -> nn.Module:
        light = parts.options.computing.move(load_expert(own / _PRUNED))
        if epochs:
            _finetune(light, parts, plan_, epochs, own / f"{_CHECKPOINT}-{epochs}")
        return light

    found = read_json(own / _PRUNED_FILE, "step file", _PRUNED_KEYS)
    cut, repaired = (Accuracy(**found[stage]) for stage in ("cut", "repaired"))
    short = min(epochs, CONTROL_EPOCHS)
    light = tuned(short)
    stages = Stages(cut, repaired, _tested(light, parts), short)
    return light if epochs == short else tuned(epochs), stages


def _tested(model: nn.Module, parts: RunParts) -> Accuracy:
    return evaluate(model, parts.loader(parts.splits.test))


def _prune(parts: RunParts, plan_: Plan, own: pathlib.Path) -> None:
    calibration = parts.loader(parts.splits.calibration)
    cut = _tested(prune(parts.heavy, plan_, compensate="none"), parts)
    light = prune(parts.heavy, plan_, calibration, compensate=parts.options.compensate)
    found = {"cut": asdict(cut), "repaired": asdict(_tested(light, parts))}
    for checkpoint in own.glob(f"{_CHECKPOINT}-*"):  # of an expert that is made again
        checkpoint.unlink()
    save_expert(light, own / _PRUNED, plan_)
    write_json(own / _PRUNED_FILE, found, "step file")


def _finetune(
    light: nn.Module, parts: RunParts, plan_: Plan, epochs: int, checkpoint: pathlib.Path
) -> None:
    """Fine-tune ``light`` in place; after a kill, from the checkpoint on."""
    options, views = parts.options, parts.views
    remove_if_damaged(checkpoint)
    finetune(
        light,
        parts.augmented(shuffle_seed=options.seed) if views is None else views,
        epochs=epochs,
        lr=options.lr,
        distillation=Distillation(
            parts.heavy if views is None else None,
            share=TEACHER_SHARE,
            features=TOKENS_WEIGHT if _tokens_match(light, plan_) else 0.0,
        ),
        checkpointing=Checkpointing(checkpoint),
        seed=options.seed,
    )


def _tokens_match(light: nn.Module, plan_: Plan) -> bool:
    """Whether the experts' last blocks are known and put out features of the same width."""
    narrower = any(layer.group in STREAMS and layer.kept < layer.units for layer in plan_.planned)
    return has_last_block(light) and not narrower
