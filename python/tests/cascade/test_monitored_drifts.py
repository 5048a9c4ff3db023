"""What the four watches say of real images that drift, and of the same images without a drift.

Every image counts as audited, so that delays are in audited images; `pytest -s` prints them.
"""

import json
import subprocess

import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

import agflow

pytestmark = pytest.mark.slow

CALIBRATION, BEFORE = 1600, 1400
TOLERANCE = 0.02


def blur(x_NCHW, strength):
    taps = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / (2 * strength**2))
    taps = (taps / taps.sum()).expand(x_NCHW.shape[1], 1, 7)
    x_NCHW = conv2d(x_NCHW, taps[..., None], padding=(3, 0), groups=len(taps))
    return conv2d(x_NCHW, taps[:, :, None], padding=(0, 3), groups=len(taps))


def noise(x_NCHW, strength):
    generator = torch.Generator().manual_seed(0)
    return x_NCHW + strength * torch.randn(x_NCHW.shape, generator=generator)


def brightness(x_NCHW, strength):
    return x_NCHW + strength


def contrast(x_NCHW, strength):
    return x_NCHW * strength


# with the watches that must alarm; of one promise that breaks, all
DRIFTS = {
    "blur 0.7": (blur, 0.7, ["prior"]),
    "blur 1.2": (blur, 1.2, ["prior", "escalation"]),
    "noise 0.3": (noise, 0.3, ["prior", "escalation"]),
    "noise 0.6": (noise, 0.6, ["prior", "escalation", "agreement"]),
    "brightness 0.5": (brightness, 0.5, ["prior", "escalation"]),
    "contrast 2": (contrast, 2.0, ["prior", "escalation", "agreement", "accuracy"]),
}


class Service:
    """A calibrated pair of experts, and images that calibrated nothing."""

    def __init__(self, light, heavy, images, labels, folder):
        order = np.random.default_rng(0).permutation(len(labels))
        self.light, self.heavy, self.folder = light, heavy, folder
        self.images, self.labels = images[order], labels[order]
        self.router = None
        held = slice(0, CALIBRATION)
        predictions = self.predict("calibration", self.images[held], self.labels[held])
        self.router = agflow.calibrate_router(predictions, tolerance=TOLERANCE)
        assert self.router.verdict == "PASS"
        self.router.save(folder / "router.json")
        self.images, self.labels = self.images[CALIBRATION:], self.labels[CALIBRATION:]
        self.predict("before", self.images[:BEFORE], self.labels[:BEFORE])

    def predict(self, name, images, labels):
        batches = list(zip(images.split(256), labels.split(256), strict=True))
        predictions = agflow.predict(self.light, self.heavy, batches, router=self.router)
        predictions.save(self.folder / f"{name}.arrow")
        return predictions

    def watches(self, *names):
        """The report of `agflow monitor` on files, by watch."""
        command = ["agflow", "monitor", "--json", "--router", "router.json"]
        command += ["--calibration", "calibration.arrow", *(f"{name}.arrow" for name in names)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.folder)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        return report, {watch["name"]: watch for watch in report["watches"]}


@pytest.fixture(scope="module")
def service(example, light, loader, tmp_path_factory):
    batches = [*loader("train", 256, 4000), *loader("test", 0, 1000)]
    images, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    return Service(light, example[0], images, labels, tmp_path_factory.mktemp("service"))


def delays(watches):
    """Images from the drift to the alarm of each watch, or "early", or None."""
    found = {}
    for name, watch in watches.items():
        alarm = watch["alarm"]
        found[name] = alarm and (alarm["image"] - BEFORE if alarm["image"] > BEFORE else "early")
    return found


def test_shuffled_images_raise_no_alarm(service):
    service.predict("shuffled", service.images, service.labels)
    report, watches = service.watches("shuffled")
    assert report["alarm"] == "", report["alarm"]
    assert {name: watch["alarm"] for name, watch in watches.items()} == dict.fromkeys(watches)


def test_class_order_is_another_mix(service):
    """Images of one class after the other are not exchangeable, and priors say so."""
    order = torch.argsort(service.labels, stable=True)
    service.predict("ordered", service.images[order], service.labels[order])
    _, watches = service.watches("ordered")
    print("in class order:", {name: watch["alarm"] for name, watch in watches.items()})
    assert watches["prior"]["alarm"] is not None


def test_another_class_mix(service):
    """Of the images from the middle on, only those of the four classes that look alike come."""
    alike = torch.isin(service.labels, torch.tensor([0, 2, 4, 6]))  # tops, coats, shirts
    alike[:BEFORE] = False
    after = service.predict("mixed", service.images[alike], service.labels[alike])
    found = report_drift("class mix", service, after, "mixed")
    assert found["escalation"] is not None
    assert found["prior"] is not None


@pytest.mark.parametrize("name", DRIFTS)
def test_drifts(service, name):
    function, strength, alarming = DRIFTS[name]
    drifted = function(service.images[BEFORE:], strength)
    after = service.predict("after", drifted, service.labels[BEFORE:])
    found = report_drift(name, service, after, "after")
    for watch in alarming:
        assert found[watch] not in (None, "early"), watch
    if "accuracy" in alarming:  # the others warn before
        assert found["prior"] < found["escalation"] < found["agreement"] < found["accuracy"]


def report_drift(name, service, after, file):
    report, watches = service.watches("before", file)
    found = delays(watches)
    evaluation = agflow.evaluate_router(after, service.router)
    print(
        f"{name}: loses {-100 * evaluation.difference:.1f} points after the drift, escalated "
        f"{100 * evaluation.ledger.escalation:.1f} % "
        f"({100 * report['escalation']['calibrated']:.1f} calibrated); alarms after {found}"
    )
    return found
