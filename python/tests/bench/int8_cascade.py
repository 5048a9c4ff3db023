"""A cascade in torch, torch.compile, ONNX Runtime and int8: accuracy and images/s, a table.

    python python/tests/bench/int8_cascade.py DATA CASCADE FOLDER [--threads 1,2] [--batches 1,32]

DATA is the folder of the development data, CASCADE a cascade of Imagenette's ten classes
(``agflow design``), FOLDER keeps its exports. Half of the validation images quantise and set both
thresholds, that of the float pair and that of the int8 pair, by the same rule; the other half is
evaluated. All contenders take turns on the same test images; ratios are medians of the rounds.
"""

from __future__ import annotations

import argparse
import pathlib
from functools import partial

import torch
from int8 import numbers
from torch import nn
from torch.utils.data import DataLoader, Subset

import agflow
from agflow._utils.instruction_set import instruction_set
from agflow.bench.machine import describe, sentence
from agflow.data import DataOptions
from agflow.evaluation import interleaved
from agflow.exporting import HeldOutImages, export_cascade

BATCH = 32
LABEL_OF_TEN = "label"
QUANTISING = 640
TORCH, COMPILED, FLOAT, INT8 = "torch float32", "torch.compile", "ONNX Runtime float32", "int8"


def halves(data: pathlib.Path, preprocessing) -> tuple[Subset, Subset]:
    """Images that quantise and set thresholds, and test images."""
    images = agflow.load_dataset(
        f"parquet:{data / 'imagenette160_val.parquet'}",
        preprocessing=preprocessing,
        classes=10,
        options=DataOptions(label=LABEL_OF_TEN),
    )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).tolist()
    middle = len(order) // 2
    return Subset(images, order[:middle]), Subset(images, order[middle:])


def made(cascade: agflow.Cascade, held_out: Subset, folder: pathlib.Path, preprocessing) -> None:
    """Export the cascade to folders of float and of int8 files, each with its threshold."""
    quantising, setting = (
        DataLoader(Subset(held_out, part), batch_size=BATCH)
        for part in (range(QUANTISING), range(QUANTISING, len(held_out)))
    )
    predictions = agflow.predict(cascade.light, cascade.heavy, setting)
    router = agflow.calibrate_router(predictions)
    cascade = agflow.Cascade(cascade.light, cascade.heavy, router)
    about = {"preprocessing": preprocessing}
    export_cascade(cascade, folder / FLOAT, **about)
    export_cascade(
        cascade,
        folder / INT8,
        images=quantising,
        quantize="int8",
        held_out=HeldOutImages(setting),
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


def print_accuracies(cascades: dict[str, agflow.Cascade], test: Subset) -> None:
    """What the float and the int8 pair reach on the test images."""
    loader = DataLoader(test, batch_size=BATCH)
    for name in (TORCH, INT8):
        cascade = cascades[name]
        predictions = agflow.predict(cascade.light, cascade.heavy, loader, router=cascade.router)
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
    for name, timing in timings.items():
        ratio = timing.speed_over(timings[f"cascade, {TORCH}"])
        print(
            f"batch {batch}, {torch.get_num_threads()} threads, {name}: "
            f"{timing.images_per_second:.1f} images/s, {ratio.speed:.2f}x the torch cascade "
            f"({ratio.slowest:.2f} to {ratio.fastest:.2f})",
            flush=True,
        )


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
    held_out, test = halves(given.data, preprocessing)
    if not (given.folder / INT8).exists():
        made(cascade, held_out, given.folder, preprocessing)
        print_accuracies(contenders(cascade, given.folder), test)
    images = torch.stack([test[i][0] for i in range(given.images)])
    for threads in given.threads:
        torch.set_num_threads(threads)
        cascades = contenders(cascade, given.folder)
        for batch in given.batches:
            few = images if batch > 1 else images[:16]
            print_speeds(cascades, few, batch, given.rounds)


if __name__ == "__main__":
    main()
