"""``agflow bench cascade`` runs, and its figures belong together."""

import json
import subprocess
import sys

import pytest

from agflow.bench import cascade
from agflow.errors import InvalidValueError

pytestmark = pytest.mark.bench


def test_the_command_measures_every_contender():
    command = [
        sys.executable,
        "-m",
        "agflow",
        "bench",
        "cascade",
        "--model",
        "vit_tiny_patch16_224",
        "--image-size",
        "32",
        "--escalation",
        "0.5",
        "--batch-sizes",
        "1,2",
        "--images",
        "4",
        "--rounds",
        "2",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["escalation"] == 0.5 and 0.5 < found["charged"] < 0.6
    assert [one["batch"] for one in found["overhead"]] == [1, 2]
    assert all(
        len(one["bare_seconds"]) == len(one["cascade_seconds"]) == 2 for one in found["overhead"]
    )
    names = [cascade.HEAVY, cascade.LIGHT, cascade.CASCADE, cascade.SERVER]
    assert [(one["batch"], one["name"]) for one in found["speed"]] == [
        (batch, name) for batch in (1, 2) for name in names
    ]
    for one in found["speed"]:
        assert (
            0 < one["slowest"] <= one["images_per_second"] <= one["fastest"]
            and 0 < one["p50_ms"] <= one["p99_ms"]
        )
    assert (
        "the cascade over its two bare passes" in found["summary"]
        and "batch 2: images/s" in found["summary"]
    )


def test_refusals():
    for wrong in ({"rounds": 0}, {"batch_sizes": (0,)}, {"escalation": 1.1}):
        with pytest.raises(InvalidValueError, match="expected whole numbers from 1 and a share"):
            cascade.measure(**wrong)
    with pytest.raises(InvalidValueError, match="no model 'vit_unknown'"):
        cascade.measure(model="vit_unknown")
