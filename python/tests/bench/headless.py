"""DeiT-Tiny without its head, MLPs and heads pruned to 0.6x of the MACs: what is kept, a table.

    python python/tests/bench/headless.py DATA [--images 256] [--test 400]

DATA is the folder of the development data. Images of ten classes calibrate and repair, without
labels; others of the same classes are compared: the cosine of the pruned model's features to the
dense one's, and the accuracy of their ten nearest neighbours, each image among the others, with
95 % intervals over the images. torch-pruning ranks by magnitude, by its own recipe for these parts
(whole heads and hidden channels, the same share of each layer) and repairs nothing; random units
are taken with agflow's repair and without any.
"""

from __future__ import annotations

import argparse
import copy
import pathlib
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader

import agflow
from agflow.bench.contenders import macs_of
from agflow.evaluation import evaluate_agreement

MACS, BATCH = 0.6, 32


def torch_pruning_cut(model: nn.Module, ratio: float) -> nn.Module:
    """The same share of the heads and of the hidden channels of every block, by magnitude."""
    import torch_pruning

    light = copy.deepcopy(model)
    attentions = [block.attn for block in light.blocks]
    for attention in attentions:
        attention.fused_attn = False  # the graph can't be traced through it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the class token and the positions it found
        pruner = torch_pruning.pruner.MetaPruner(
            light,
            torch.randn(1, 3, 224, 224),
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            round_to=2,
            ignored_layers=[block.mlp.fc2 for block in light.blocks],
            num_heads={attention.qkv: attention.num_heads for attention in attentions},
            prune_num_heads=True,
            prune_head_dims=False,
            head_pruning_ratio=1 / 3 + 1e-6,  # one of three
        )
        pruner.step()
    for attention in attentions:
        attention.num_heads = pruner.num_heads[attention.qkv]
        attention.attn_dim = attention.qkv.out_features // 3
        attention.head_dim = attention.attn_dim // attention.num_heads
        attention.fused_attn = True
    return light


def nearest(model: nn.Module) -> nn.Module:
    """torch-pruning's cut whose MACs are the fewest above the budget."""
    low, high = 0.0, 0.95
    for _ in range(7):
        ratio = (low + high) / 2
        enough = macs_of(torch_pruning_cut(model, ratio)) >= MACS * macs_of(model)
        low, high = (ratio, high) if enough else (low, ratio)
    return torch_pruning_cut(model, low)


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
        "torch-pruning magnitude": lambda: nearest(model),
    }
    for name, cut in contenders.items():
        light = cut()
        found = evaluate_agreement(light, model, test)
        share = macs_of(light) / macs_of(model)
        print(f"{name}, {share:.3f}x MACs\n  " + str(found).replace("\n", "\n  "), flush=True)


if __name__ == "__main__":
    main()
