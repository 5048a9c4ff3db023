"""A cascade in torch, torch.compile, ONNX Runtime and int8: accuracy and images/s, a table.

    python python/tests/bench/int8_cascade.py DATA CASCADE FOLDER [--threads 1,2] [--batches 1,32]

DATA is the folder of the development data, CASCADE the cascade of Imagenette's ten classes that
``agflow design`` made of its training images and held-out validation images with seed 0, FOLDER
keeps its exports. Training images quantise; both thresholds, that of the float pair and that of the
int8 pair, are set by the same rule on the images that calibrated the design's, and evaluated on its
test images. All contenders take turns on the same test images; ratios are medians of the rounds.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
from functools import partial

import torch
from int8 import COMPILED, FLOAT, TORCH, numbers, print_timings
from torch import nn
from torch.utils.data import DataLoader, Subset

import agflow
from agflow._utils.instruction_set import instruction_set
from agflow.bench.machine import describe, sentence
from agflow.evaluation import interleaved
from agflow.exporting import HeldOutImages, export_cascade
from agflow.recipes import DesignOptions
from agflow.recipes.design_images import DesignImages, design_images

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from cifar import TEN

BATCH = 32
QUANTISING = 640
INT8 = "int8"


def images_of_design(data: pathlib.Path, preprocessing) -> DesignImages:
    """The images by use, as the design had them."""
    options = DesignOptions(
        output="",
        data=f"parquet:{data / 'imagenette160_train3000.parquet'}",
        held_out=f"parquet:{data / 'imagenette160_val.parquet'}",
        label="imagenet_label",
        classes=tuple(TEN),
    )
    return design_images(options, preprocessing, 1000)


def made(
    cascade: agflow.Cascade, images: DesignImages, folder: pathlib.Path, preprocessing
) -> None:
    """Export the cascade to folders of float and of int8 files, each with its threshold."""
    quantising = DataLoader(Subset(images.tuning.dataset, range(QUANTISING)), batch_size=BATCH)
    predictions = agflow.predict(cascade.light, cascade.heavy, images.calibrating)
    router = agflow.calibrate_router(predictions)
    cascade = agflow.Cascade(cascade.light, cascade.heavy, router)
    about = {"preprocessing": preprocessing}
    export_cascade(cascade, folder / FLOAT, **about)
    export_cascade(
        cascade,
        folder / INT8,
        images=quantising,
        quantize="int8",
        held_out=HeldOutImages(images.calibrating),
        **about,
    )


def contenders(cascade: agflow.Cascade, folder: pathlib.Path) -> dict[str, agflow.Cascade]:
    exported = {name: agflow.load(folder / name) for name in (FLOAT, INT8)}
    router = exported[FLOAT].router
    torch.compiler.reset()  # kernels have the number of threads compiled in
    light, heavy = cascade.light, cascade.heavy
    compiled = [torch.compile(expert, dynamic=True) for expert in (light, heavy)]
    return {
        TORCH: agflow.Cascade(light, heavy, router),
        COMPILED: agflow.Cascade(*compiled, router),
        **exported,
    }


def print_accuracies(cascades: dict[str, agflow.Cascade], test: DataLoader) -> None:
    """What the float and the int8 pair reach on the test images."""
    for name in (TORCH, INT8):
        cascade = cascades[name]
        predictions = agflow.predict(cascade.light, cascade.heavy, test, router=cascade.router)
        found = agflow.evaluate_router(predictions, cascade.router)
        print(f"{name}: promised {cascade.router.rule}, {found}", flush=True)


@torch.inference_mode()
def run(model: nn.Module, batches: list[torch.Tensor]) -> None:
    for x in batches:
        model(x)


def print_speeds(
    cascades: dict[str, agflow.Cascade], images: torch.Tensor, batch: int, rounds: int
) -> None:
    batches = list(images.split(batch))
    runs = {}
    for name, cascade in cascades.items():
        runs[f"heavy, {name}"] = partial(run, cascade.heavy, batches)
        runs[f"light, {name}"] = partial(run, cascade.light, batches)
        runs[f"cascade, {name}"] = partial(run, cascade, batches)
    timings = interleaved(runs, rounds=rounds, images=len(images))
    conditions = f"batch {batch}, {torch.get_num_threads()} threads"
    print_timings(conditions, timings, f"cascade, {TORCH}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("cascade", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--batches", type=numbers, default=[1, 32])
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(f"{sentence(describe())}, int8 by {instruction_set()}")
    cascade = agflow.load(given.cascade)
    preprocessing = agflow.load_model(str(given.cascade / "heavy"))[1]
    images = images_of_design(given.data, preprocessing)
    if not (given.folder / INT8).exists():
        made(cascade, images, given.folder, preprocessing)
        print_accuracies(contenders(cascade, given.folder), images.test)
    test = images.test.dataset
    photographs = torch.stack([test[i][0] for i in range(given.images)])
    for threads in given.threads:
        torch.set_num_threads(threads)
        cascades = contenders(cascade, given.folder)
        for batch in given.batches:
            few = photographs if batch > 1 else photographs[:16]
            print_speeds(cascades, few, batch, given.rounds)


if __name__ == "__main__":
    main()
