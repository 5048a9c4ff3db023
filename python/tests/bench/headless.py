"""DeiT-Tiny without its head, MLPs and heads pruned to 0.6x of the MACs: what is kept, a table.

    python python/tests/bench/headless.py DATA [--images 256] [--test 400]

DATA is the folder of the development data. Images of ten classes calibrate and repair, without
labels; others of the same classes are compared: the cosine of the pruned model's features to the
dense one's, and the accuracy of their ten nearest neighbours, each image among the others, with
95 % intervals over the images. torch-pruning ranks by magnitude, by its own recipe for these parts
(:class:`agflow.bench.contenders.TorchPruning`), and repairs nothing; random units are taken with
agflow's repair and without any.
"""

from __future__ import annotations

import argparse
import pathlib

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import agflow
from agflow.bench.contenders import TorchPruning, macs_of
from agflow.evaluation import evaluate_agreement

MACS, BATCH = 0.6, 32


def torch_pruning_cut(model: nn.Module, images: Dataset) -> nn.Module:
    """Whole heads and hidden channels of every block, by magnitude, nearly at the budget."""
    recipe = TorchPruning(taylor=False, embedding=False, heads="heads")
    return recipe.step(model, round(MACS * macs_of(model)), round_to=2, seed=0)(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--test", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, preprocessing, _ = agflow.load_model(
        "timm:deit_tiny_patch16_224", given.data / "deit_tiny_patch16_224.safetensors"
    )
    model.reset_classifier(0)
    model.eval()

    def loader(file: str, limit: int) -> DataLoader:
        images = agflow.load_dataset(
            f"parquet:{given.data / file}", preprocessing=preprocessing, limit=limit, seed=0
        )
        return DataLoader(images, batch_size=BATCH)

    images = loader("imagenette160_train3000.parquet", given.images)
    test = loader("imagenette160_val.parquet", given.test)
    statistics = agflow.calibrate(
        model, images, batches=len(images), groups=["mlp", "heads"], loss="features"
    )
    plans = {name: agflow.plan(statistics, macs=MACS, criterion=name) for name in ("agf", "random")}
    contenders = {
        "agflow": lambda: agflow.prune(model, plans["agf"], images),
        "random units, repaired": lambda: agflow.prune(model, plans["random"], images),
        "random units": lambda: agflow.prune(model, plans["random"], compensate="none"),
        "torch-pruning magnitude": lambda: torch_pruning_cut(model, images.dataset),
    }
    for name, cut in contenders.items():
        light = cut()
        found = evaluate_agreement(light, model, test)
        share = macs_of(light) / macs_of(model)
        print(f"{name}, {share:.3f}x MACs\n  " + str(found).replace("\n", "\n  "), flush=True)


if __name__ == "__main__":
    main()
