"""One model in torch, ONNX Runtime and int8: images/s and accuracy in the same run, a table.

    python python/tests/bench/int8.py DATA [--model timm:deit_tiny_patch16_224]
        [--weights deit_tiny_patch16_224.safetensors] [--quantising 640] [--test 3791]
        [--threads 1,2] [--batches 1,32] [--rounds 9]

DATA is the folder of the development data. Imagenette's training images quantise; its validation
images, which have chosen nothing, say what each file loses: top-1 of 1,000 classes against the
float file, with the 95 % interval of the paired difference, and the share of equal answers. All
contenders take turns, so that drift of the machine meets all alike; the ratio is the median of the
rounds' ratios. int8 products depend on the CPU's instructions, which stand above the table.
"""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

import agflow
from agflow._utils.instruction_set import instruction_set
from agflow._utils.onnx_session import OnnxSession
from agflow.bench.machine import describe, sentence
from agflow.data import DataOptions
from agflow.errors import UnsupportedModelError
from agflow.evaluation import Estimate, Timing, interleaved
from agflow.exporting import Quantization
from agflow.exporting.quantizing import METHODS

TORCH, COMPILED, FLOAT = "torch float32", "torch.compile", "ONNX Runtime float32"
LABEL = "imagenet_label"


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def loader(given: argparse.Namespace, preprocessing, file: str, limit: int) -> DataLoader:
    images = agflow.load_dataset(
        f"parquet:{given.data / file}",
        preprocessing=preprocessing,
        limit=limit,
        seed=0,
        classes=1000,
        options=DataOptions(label=LABEL, cache_bytes=0),
    )
    return DataLoader(images, batch_size=32)


def files_of(given: argparse.Namespace, model: nn.Module, preprocessing, folder: pathlib.Path):
    """The exported files by name; those that cannot be made are named and left out."""
    quantising = loader(given, preprocessing, "imagenette160_train3000.parquet", given.quantising)
    files = {FLOAT: folder / "float.onnx"}
    agflow.export(model, files[FLOAT], preprocessing=preprocessing)
    for method in METHODS:
        try:
            file = folder / f"{method}.onnx"
            agflow.export(model, file, quantize=method, images=quantising)
        except UnsupportedModelError as error:
            print(f"{method}: {error}")
            continue
        print(Quantization.of(OnnxSession(file).metadata["quantization"]), flush=True)
        files[method] = file
    return files


def print_losses(files: dict[str, pathlib.Path], test: DataLoader, threads: int) -> None:
    sessions = {name: OnnxSession(file, threads) for name, file in files.items()}
    answers, labels = {name: [] for name in sessions}, []
    for images, truth in test:
        labels.append(truth.numpy())
        for name, session in sessions.items():
            answers[name].append(session.run(images.numpy()).argmax(1))
    labels_N = np.concatenate(labels)
    found = {name: np.concatenate(parts) for name, parts in answers.items()}
    right = {name: answers_N == labels_N for name, answers_N in found.items()}
    for name in found:
        loss = Estimate.of_difference(right[FLOAT], right[name])
        equal = float((found[name] == found[FLOAT]).mean())
        print(
            f"{name}: top-1 {100 * right[name].mean():.2f} % of {len(labels_N)} test images, loss "
            f"{100 * loss.value:.2f} points ({100 * loss.low:.2f} to {100 * loss.high:.2f}), "
            f"{100 * equal:.2f} % equal answers",
            flush=True,
        )


def print_timings(conditions: str, timings: dict[str, Timing], base: str) -> None:
    """A line for each contender, with the ratio of its images/s over those of ``base``."""
    for name, timing in timings.items():
        ratio = timing.speed_over(timings[base])
        print(
            f"{conditions}, {name}: {timing.images_per_second:.1f} images/s, "
            f"{ratio.speed:.2f}x {base} ({ratio.slowest:.2f} to {ratio.fastest:.2f})",
            flush=True,
        )


@torch.inference_mode()
def print_speeds(
    files: dict[str, pathlib.Path], model: nn.Module, x: torch.Tensor, threads: int, rounds: int
) -> None:
    torch.set_num_threads(threads)
    torch.compiler.reset()  # kernels have the number of threads compiled in
    runs = {TORCH: partial(model, x), COMPILED: partial(torch.compile(model, dynamic=False), x)}
    for name, file in files.items():
        runs[name] = partial(OnnxSession(file, threads).run, x.numpy())
    timings = interleaved(runs, rounds=rounds, images=len(x))
    print_timings(f"batch {len(x)}, {threads} threads", timings, TORCH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--model", default="timm:deit_tiny_patch16_224")
    parser.add_argument("--weights", default="deit_tiny_patch16_224.safetensors")
    parser.add_argument("--quantising", type=int, default=640)
    parser.add_argument("--test", type=int, default=3791)
    parser.add_argument("--threads", type=numbers, default=[1, 2])
    parser.add_argument("--batches", type=numbers, default=[1, 32])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    print(f"{sentence(describe())}, int8 by {instruction_set()}")
    torch.set_num_threads(given.threads[0])
    model, preprocessing, _ = agflow.load_model(given.model, given.data / given.weights)
    with tempfile.TemporaryDirectory() as folder:
        files = files_of(given, model, preprocessing, pathlib.Path(folder))
        test = loader(given, preprocessing, "imagenette160_val.parquet", given.test)
        print_losses(files, test, max(given.threads))
        images, _ = next(iter(test))
        for threads in given.threads:
            for batch in given.batches:
                print_speeds(files, model, images[:batch].contiguous(), threads, given.rounds)


if __name__ == "__main__":
    main()
