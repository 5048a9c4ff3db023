"""DeiT-Tiny pruned without labels: losses of its own against the labels' on other images, a table.

    python python/tests/bench/no_labels.py DATA FOLDER [--draws 5] [--cells 2]

DATA is the folder of the development data. Every cell is kept in FOLDER: a call that was stopped
goes on with those that are missing, and ``--cells 2`` makes at most two (100 s each, one thread).

``never seen``: 500 images of as many classes are halved at random; one half calibrates and repairs,
the other one is classified, and the other way round. ``own``: images of ten classes calibrate,
others of the same classes are classified. MLPs and heads lose units, and nothing is trained.
Differences to the labels are paired, in points, with 95 % intervals over the images.

Shape suffixes: N test images, D draws.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import time

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Subset

import agflow
from agflow.calibration import CalibrationOptions

LABELS, LABEL_FREE = "labels", ("self", "features")
LOSSES = LABELS, *LABEL_FREE
MACS = 0.6, 0.5
SETTINGS = "never seen", "own"
CALIBRATION, TEST, BATCH = 250, 400, 32
"""Images that calibrate and repair, images of the ten classes that are classified."""


def images_of(data: pathlib.Path, file: str, preprocessing, **which) -> Dataset:
    return agflow.load_dataset(
        f"parquet:{data / file}", preprocessing=preprocessing, classes=1000, **which
    )


def parts(data: pathlib.Path, preprocessing, setting: str, draw: int, way: int) -> tuple:
    """Images that calibrate, images that are classified, and the numbers of these."""
    if setting == "own":
        calibration = images_of(
            data,
            "imagenette160_train3000.parquet",
            preprocessing,
            limit=CALIBRATION,
            offset=CALIBRATION * (2 * draw + way),
            seed=0,
        )
        name = "imagenette160_val.parquet"
        return calibration, images_of(data, name, preprocessing, limit=TEST, seed=0), range(TEST)
    images = images_of(data, "imagenet1000_samples_even.parquet", preprocessing)
    order = np.random.default_rng(draw).permutation(len(images))
    half = len(images) // 2
    calibrating, tested = (order[:half], order[half:]) if way == 0 else (order[half:], order[:half])
    return (
        Subset(images, calibrating[:CALIBRATION].tolist()),
        Subset(images, tested.tolist()),
        tested,
    )


@torch.no_grad()
def correct(model: torch.nn.Module, images: Dataset) -> np.ndarray:
    """Which images a model classifies correctly, bool [N]."""
    batches = DataLoader(images, batch_size=50)
    return torch.cat([model.eval()(x).argmax(1) == labels for x, labels in batches]).numpy()


def make(
    data: pathlib.Path, folder: pathlib.Path, setting: str, draw: int, way: int, loss: str
) -> None:
    """Make and keep one cell: a loss on one half, at every size."""
    start = time.perf_counter()
    model, preprocessing, _ = agflow.load_model(
        "timm:deit_tiny_patch16_224", data / "deit_tiny_patch16_224.safetensors"
    )
    calibration, tested, numbers = parts(data, preprocessing, setting, draw, way)
    loader = DataLoader(calibration, batch_size=BATCH)
    statistics = agflow.calibrate(
        model,
        loader,
        batches=len(loader),
        groups=["mlp", "heads"],
        loss=loss,
        options=CalibrationOptions(seed=draw),
    )
    found = {}
    for macs in MACS:
        light = agflow.prune(model, agflow.plan(statistics, macs=macs), loader)
        found[str(macs)] = correct(light, tested)
    np.savez(file_of(folder, setting, draw, way, loss), numbers=np.asarray(numbers), **found)
    shares = ", ".join(f"{100 * right.mean():.1f} at {macs}x" for macs, right in found.items())
    print(
        f"{setting}, draw {draw}, way {way}, {loss}: {shares}; {time.perf_counter() - start:.0f} s",
        flush=True,
    )


def file_of(folder: pathlib.Path, setting: str, draw: int, way: int, loss: str) -> pathlib.Path:
    return folder / f"{setting.replace(' ', '-')}-{draw}-{way}-{loss}.npz"


def halves(folder: pathlib.Path, setting: str, draws: int) -> list[tuple[int, int]]:
    """Draws and ways of which every loss is there."""
    return [
        (draw, way)
        for draw, way in itertools.product(range(draws), (0, 1))
        if all(file_of(folder, setting, draw, way, loss).exists() for loss in LOSSES)
    ]


def rows(
    folder: pathlib.Path, setting: str, made: list[tuple[int, int]], macs: float
) -> dict[str, np.ndarray]:
    """By loss, the share of the draws in which each test image is correct, [N]."""
    found = {}
    for loss in LOSSES:
        cells = [np.load(file_of(folder, setting, *half, loss)) for half in made]
        numbers = np.concatenate([cell["numbers"] for cell in cells])
        right = np.concatenate([cell[str(macs)] for cell in cells]).astype(float)
        times = np.bincount(numbers)
        found[loss] = np.bincount(numbers, right)[times > 0] / times[times > 0]
    return found


def table(folder: pathlib.Path, draws: int) -> str:
    """The table of the halves that are there."""
    lines = [f"{'':<12}{'macs':<6}{'labels':>8}" + "".join(f"{loss:>28}" for loss in LABEL_FREE)]
    for setting, macs in itertools.product(SETTINGS, MACS):
        made = halves(folder, setting, draws)
        if not made:
            continue
        found = rows(folder, setting, made, macs)
        labels_N = 100 * found[LABELS]
        line = f"{setting:<12}{macs:<6}{labels_N.mean():>8.1f}"
        for loss in LABEL_FREE:
            difference_N = 100 * found[loss] - labels_N
            half = 1.96 * difference_N.std(ddof=1) / np.sqrt(len(difference_N))
            mean = difference_N.mean()
            column = f"{mean:+.2f} ({mean - half:+.2f} to {mean + half:+.2f})"
            line += f"{column:>28}"
        lines.append(f"{line}  {len(labels_N)} images, {len(made)} halves")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--cells", type=int, default=1000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cells = itertools.product(range(given.draws), SETTINGS, (0, 1), LOSSES)
    missing = [
        (setting, draw, way, loss)
        for draw, setting, way, loss in cells
        if not file_of(given.folder, setting, draw, way, loss).exists()
    ]
    for cell in missing[: given.cells]:
        make(given.data, given.folder, *cell)
    print(table(given.folder, given.draws))


if __name__ == "__main__":
    main()
