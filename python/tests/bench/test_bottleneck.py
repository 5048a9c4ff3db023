"""Every figure of the comparison is there, and the verdict is what the figures say."""

import copy
import json

import pytest

from agflow.bench.bottleneck import BottleneckBenchOptions, measure, text, verdict
from agflow.errors import InvalidValueError

pytestmark = pytest.mark.bench

SMALL = BottleneckBenchOptions(
    calibration=32, tune=32, eval_limit=80, epochs=1, scratch_epochs=1, rounds=1
)


@pytest.fixture(scope="module")
def found():
    return measure(SMALL, say=lambda line: None)


def test_every_figure_is_there(found):
    assert json.loads(json.dumps(found)) == found
    assert {
        training: [row["epoch"] for row in rows] for training, rows in found["trainings"].items()
    } == {"from random weights": [0, 1], "light expert, after the cut": [0, 1]}
    priors = {prior["prior"]: prior for prior in found["priors"]}
    assert {"max_probability", "energy_scaled", "l1_norm", "agf"} <= priors.keys()
    assert all(prior["low"] <= prior["auroc"] <= prior["high"] for prior in priors.values())
    cost = found["cost"]
    assert 0.9 < cost["utility_macs"] / cost["light_macs"] < 1.1 and cost["time"]["median"] > 1
    said = text(found)
    assert all(
        words in said
        for words in (
            "from random weights",
            "  epoch 1",
            "agf costs 1.0",
            "route by confidence",
        )
    )


def test_the_backward_pass_is_in_the_least_charged_cost(found):
    """Where all images must escalate, agf costs what it costs more and nothing less."""
    least = {prior["prior"]: prior["least_charged"] for prior in found["priors"]}
    assert (
        least["agf"]
        > (found["cost"]["light_macs"] + found["cost"]["utility_macs"]) / found["heavy_macs"]
    )
    assert least["max_probability"] <= 1 + found["cost"]["light_macs"] / found["heavy_macs"]


def test_the_verdict_goes_by_the_figures(found):
    changed = copy.deepcopy(found)
    for training, last in (("from random weights", 10.0), ("light expert, after the cut", 90.0)):
        for row, value in zip(changed["trainings"][training], (50.0, last), strict=True):
            row["units"]["overall"]["max_over_median"] = row["images"]["max_over_median"] = value
    for low, high, expected in (
        (0.9, 0.95, "better than max_probability, for a backward pass more: refuted"),
        (0.5, 0.6, "worse than max_probability, for a backward pass more: reproduced"),
        (0.6, 0.9, "about as well as max_probability, for a backward pass more: reproduced"),
    ):
        changed["priors"] = [
            {"prior": "max_probability", "low": 0.7, "high": 0.8},
            {"prior": "agf", "low": low, "high": high},
        ]
        lines = verdict(changed)
        assert expected in lines[-1]
    assert (
        "from at most 50.0 to 10.0 at the end: reproduced" in lines[0]
        and "from at most 50.0 to 90.0 at the end: refuted" in lines[2]
    )


def test_refusals():
    with pytest.raises(InvalidValueError, match="epochs 0"):
        measure(BottleneckBenchOptions(epochs=0))
