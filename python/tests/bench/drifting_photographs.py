"""What the four watches say of photographs that drift: DeiT-Tiny's cascade on Imagenette.

    python python/tests/bench/drifting_photographs.py DATA CASCADE

DATA is the folder of the development data, CASCADE a cascade of Imagenette's ten classes
(``agflow design``). 1,600 validation images set the threshold, 1,400 come before the drift and 791
after it. Every image counts as audited, so that delays are in audited images.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import torch

import agflow
from agflow.data import DataOptions

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "cascade"))
from test_monitored_drifts import (
    BEFORE,
    Service,
    blur,
    brightness,
    contrast,
    noise,
    report_drift,
)

DRIFTS = {
    "blur 1": (blur, 1.0),
    "blur 4, of 7 pixels": (blur, 4.0),
    "noise 0.5": (noise, 0.5),
    "noise 1": (noise, 1.0),
    "brightness 1": (brightness, 1.0),
    "contrast 2": (contrast, 2.0),
}


def main() -> None:
    data, folder = map(pathlib.Path, sys.argv[1:])
    cascade = agflow.load(folder)
    images = agflow.load_dataset(
        f"parquet:{data / 'imagenette160_val.parquet'}",
        preprocessing=agflow.load_model(str(folder / "heavy"))[1],
        classes=10,
        options=DataOptions(label="label", cache_bytes=0),
    )
    x_NCHW, labels_N = zip(*(images[i] for i in range(len(images))), strict=True)
    with tempfile.TemporaryDirectory() as scratch:
        service = Service(
            cascade.light,
            cascade.heavy,
            torch.stack(x_NCHW),
            torch.tensor(labels_N),
            pathlib.Path(scratch),
        )
        without_drift(service)
        for name, (function, strength) in DRIFTS.items():
            drifted = function(service.images[BEFORE:], strength)
            after = service.predict("after", drifted, service.labels[BEFORE:])
            report_drift(name, service, after, "after")


def without_drift(service: Service) -> None:
    """The same images shuffled, in class order, and then of four classes only."""
    service.predict("shuffled", service.images, service.labels)
    order = torch.argsort(service.labels, stable=True)
    service.predict("ordered", service.images[order], service.labels[order])
    for name in ("shuffled", "ordered"):
        _, watches = service.watches(name)
        alarms = {
            watch: found["alarm"] and found["alarm"]["image"] for watch, found in watches.items()
        }
        print(f"no drift, {name}: alarms at image {alarms}", flush=True)
    alike = torch.isin(service.labels, torch.arange(4))
    alike[:BEFORE] = False
    after = service.predict("mixed", service.images[alike], service.labels[alike])
    report_drift("class mix", service, after, "mixed")


if __name__ == "__main__":
    main()
