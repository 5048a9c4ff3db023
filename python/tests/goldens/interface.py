"""The interface that ``freeze.py`` drives: agflow's own, with the data it needs."""

from __future__ import annotations

import pathlib

from torch.utils.data import DataLoader, Subset

import agflow
from agflow.cascade import curve, oracle  # noqa: F401
from agflow.pruning import Allocation
from agflow.recipes import DesignOptions, RunOptions, design as design_recipe, run as run_recipe

criteria, score, prune = agflow.criteria, agflow.score, agflow.prune
Statistics, Predictions, Cascade = agflow.Statistics, agflow.Predictions, agflow.Cascade
calibrate, calibrate_router = agflow.calibrate, agflow.calibrate_router
predict = agflow.predict


def finetune(light, loader, *, teacher, epochs: int, lr: float, features: float) -> None:
    distillation = agflow.training.Distillation(teacher, features=features)
    agflow.finetune(light, loader, epochs=epochs, lr=lr, distillation=distillation)


def plan(statistics, **options):
    names = Allocation.__dataclass_fields__
    allocation = Allocation(**{name: options.pop(name) for name in names if name in options})
    return agflow.plan(statistics, allocation=allocation, **options)


def save(model, folder: pathlib.Path, plan) -> None:
    agflow.save(model, folder, plan=plan)


def example():
    heavy, preprocessing, _ = agflow.load_model("example")
    parts = {
        part: agflow.load_dataset(f"example:{part}", preprocessing=preprocessing, classes=10)
        for part in ("train", "test")
    }
    return heavy.eval(), lambda part, start, stop: DataLoader(
        Subset(parts[part], range(start, stop)), batch_size=64
    )


def latency(heavy):
    from agflow.bench import layers

    return layers.measure(heavy, batch=32, rounds=3)


def run(folder: pathlib.Path) -> None:
    options = RunOptions(
        output=str(folder), macs="0.35", epochs=1, limit=600, eval_limit=200, batches=4
    )
    run_recipe(options, say=lambda line: None)


def design(folder: pathlib.Path) -> None:
    design_recipe(
        DesignOptions(
            output=str(folder), limit=1200, epochs=2, lr=1e-3, image_sizes=(16, 20), macs=(1.0, 0.5)
        )
    )


def deit(data: pathlib.Path):
    weights = data / "deit_tiny_patch16_224.safetensors"
    heavy, preprocessing, _ = agflow.load_model("timm:deit_tiny_patch16_224", weights)
    images = agflow.load_dataset(
        f"parquet:{data / 'imagenette160_train3000.parquet'}",
        preprocessing=preprocessing,
        classes=1000,
        limit=32,
        seed=0,
    )
    return heavy.eval(), lambda start, stop: DataLoader(
        Subset(images, range(start, stop)), batch_size=8
    )
