"""One result by three interfaces: Python, the command hosting Python, and Go on files alone.

Statistics, scores and plan are compared as files, byte by byte; the threshold as its JSON.
"""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import agflow
from agflow._core.loader import backend_name
from agflow.calibration.options import CalibrationOptions
from agflow.data.datasets import load_dataset
from agflow.models.resolution import image_size
from agflow.pruning import Allocation
from agflow.pruning.planning import PlanDiff

BATCHES, BATCH_SIZE = 2, 32
GROUPS = "mlp", "heads", "head_dim", "embed", "block"


def command(*arguments):
    done = subprocess.run(
        ["agflow", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def written(tmp_path_factory, example):
    """statistics.arrow by each interface, of the same images: those that the seed draws."""
    folder = tmp_path_factory.mktemp("interfaces")
    images = load_dataset(
        "example:train", preprocessing=example[1], limit=BATCHES * BATCH_SIZE, seed=0, classes=10
    )
    python = agflow.calibrate(
        example[0],
        DataLoader(images, BATCH_SIZE),
        batches=BATCHES,
        groups=GROUPS,
        options=CalibrationOptions(dump=folder / "dump"),
    )
    python.save(folder / "python.arrow")
    command(
        "calibrate",
        "--model",
        "example",
        "--data",
        "example:train",
        "--limit",
        BATCHES * BATCH_SIZE,
        "--batches",
        BATCHES,
        "--batch-size",
        BATCH_SIZE,
        "--groups",
        ",".join(GROUPS),
        "--output",
        folder / "hosted.arrow",
    )
    command("statistics", "--tensors", folder / "dump", "--output", folder / "files.arrow")
    return folder


def test_statistics_files_are_equal_byte_by_byte(written):
    python = (written / "python.arrow").read_bytes()
    assert (written / "files.arrow").read_bytes() == python
    assert (written / "hosted.arrow").read_bytes() == python


def test_the_command_prunes_at_another_image_size_as_python_does(tmp_path, example):
    images = load_dataset(
        "example:train", preprocessing=example[1], limit=BATCHES * BATCH_SIZE, seed=0, classes=10
    )
    agflow.calibrate(
        example[0], DataLoader(images, BATCH_SIZE), batches=BATCHES, image_size=16
    ).save(tmp_path / "python.arrow")
    drawn = (
        "--model",
        "example",
        "--data",
        "example:train",
        "--limit",
        BATCHES * BATCH_SIZE,
        "--batch-size",
        BATCH_SIZE,
    )
    command(
        "calibrate",
        *drawn,
        "--batches",
        BATCHES,
        "--image-size",
        16,
        "--output",
        tmp_path / "hosted.arrow",
    )
    assert (tmp_path / "hosted.arrow").read_bytes() == (tmp_path / "python.arrow").read_bytes()
    command(
        "score", "--statistics", tmp_path / "hosted.arrow", "--output", tmp_path / "scores.arrow"
    )
    command(
        "plan",
        "--scores",
        tmp_path / "scores.arrow",
        "--macs",
        "0.5",
        "--output",
        tmp_path / "plan.arrow",
    )
    assert agflow.Plan.load(tmp_path / "plan.arrow").image_size == (16, 16)
    command(
        "prune",
        *drawn,
        "--plan",
        tmp_path / "plan.arrow",
        "--compensate",
        "mean",
        "--output",
        tmp_path / "light",
    )
    light = agflow.load(tmp_path / "light")
    assert image_size(light) == (16, 16) and light(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_scores_and_plan_are_equal_byte_by_byte(written):
    statistics = agflow.Statistics.load(written / "python.arrow")
    agflow.score(statistics).save(written / "scores-python.arrow")
    agflow.plan(statistics, macs=0.5).save(written / "plan-python.arrow")
    command(
        "score",
        "--statistics",
        written / "files.arrow",
        "--criterion",
        "agf",
        "--output",
        written / "scores-go.arrow",
    )
    command(
        "score",
        "--statistics",
        written / "files.arrow",
        "--criterion",
        "variance_weighted",
        "--output",
        written / "widths-go.arrow",
    )
    command(
        "plan",
        "--scores",
        written / "scores-go.arrow",
        "--widths",
        written / "widths-go.arrow",
        "--macs",
        "0.5",
        "--output",
        written / "plan-go.arrow",
    )
    for name in ("scores", "plan"):
        assert (written / f"{name}-go.arrow").read_bytes() == (
            written / f"{name}-python.arrow"
        ).read_bytes(), name


@pytest.mark.parametrize(
    "options",
    [{"params": 0.7}, {"macs": "0.6", "joint": True}, {"pruning_ratio": 0.8, "floor": 0.25}],
)
def test_plans_of_every_budget_are_equal_byte_by_byte(written, options):
    scores = agflow.score(agflow.Statistics.load(written / "python.arrow"))
    scores.save(written / "scores.arrow")
    shared_out = {name: value for name, value in options.items() if name in ("joint", "floor")}
    budget = {name: value for name, value in options.items() if name not in shared_out}
    agflow.plan(scores, **budget, allocation=Allocation(**shared_out)).save(
        written / "plan-python.arrow"
    )
    flags = [
        part
        for name, value in options.items()
        for part in ([f"--{name}"] if value is True else [f"--{name.replace('_', '-')}", value])
    ]
    command(
        "plan", "--scores", written / "scores.arrow", *flags, "--output", written / "plan-go.arrow"
    )
    assert (written / "plan-go.arrow").read_bytes() == (written / "plan-python.arrow").read_bytes()


def test_latency_plans_and_their_difference_are_equal(tmp_path, scores_with_costs, latency):
    scores_with_costs.save(tmp_path / "scores.arrow")
    latency.save(tmp_path / "latency.arrow")
    plans = [
        agflow.plan(
            scores_with_costs, latency_ms=ms, allocation=Allocation(latency=latency, round_to=1)
        )
        for ms in (8.0, 13.0)
    ]
    for plan, ms, name in zip(plans, ("8", "13"), "ab", strict=True):
        command(
            "plan",
            "--scores",
            tmp_path / "scores.arrow",
            "--latency-ms",
            ms,
            "--latency",
            tmp_path / "latency.arrow",
            "--round-to",
            1,
            "--output",
            tmp_path / f"{name}-go.arrow",
        )
        plan.save(tmp_path / f"{name}.arrow")
        assert (tmp_path / f"{name}-go.arrow").read_bytes() == (
            tmp_path / f"{name}.arrow"
        ).read_bytes()
    found = json.loads(command("--json", "diff", tmp_path / "a.arrow", tmp_path / "b.arrow").stdout)
    assert PlanDiff.of(found) == plans[0].diff(plans[1]) and found["jaccard"] == 4 / 6


@pytest.fixture(scope="module")
def predictions(written, example, light, loader):
    found = agflow.predict(light, example[0], loader("train", 2400, 3400))
    found.save(written / "predictions.arrow")
    return found


@pytest.mark.parametrize(
    "limit",
    [{"tolerance": 0.02}, {"charged": 0.5}, {"escalation": 0.2}],
    ids=lambda limit: next(iter(limit)),
)
@pytest.mark.parametrize(
    "prior, answers",
    [
        ("max_probability", "heavy"),
        ("entropy_scaled", "ensemble"),
        ("auto", "heavy"),
        ("auto", "ensemble"),
    ],
)
def test_router_and_curve_are_equal_byte_by_byte(written, predictions, prior, answers, limit):
    ((name, value),) = limit.items()
    command(
        "route",
        "--predictions",
        written / "predictions.arrow",
        "--prior",
        prior,
        *(["--ensemble"] if answers == "ensemble" else []),
        f"--{name}",
        value,
        "--confidence",
        "0.9",
        "--output",
        written / "router-go.json",
        "--curve",
        written / "curve-go.arrow",
    )
    router = agflow.calibrate_router(
        predictions, prior=prior, ensemble=answers == "ensemble", confidence=0.9, **limit
    )
    router.save(written / "router-python.json")
    agflow.cascade.curve(predictions, prior=router.prior, ensemble=answers == "ensemble").save(
        written / "curve-python.arrow"
    )
    for kind in ("router-{}.json", "curve-{}.arrow"):
        assert (written / kind.format("go")).read_bytes() == (
            written / kind.format("python")
        ).read_bytes(), kind
    assert agflow.Router.load(written / "router-go.json") == router


@pytest.mark.parametrize("answers", ["heavy", "ensemble"])
def test_decisions_without_python_are_the_cascades(
    written, predictions, example, light, loader, answers
):
    """The command alone, on files of logits, answers each image as Python does."""
    x = torch.cat([x for x, _ in loader("test", 0, 200)])
    calibrated = agflow.calibrate_router(
        predictions, ensemble=answers == "ensemble", tolerance=0.02, confidence=0.9
    )
    router = replace(calibrated, light_weight=0.4 if answers == "ensemble" else 0.0)
    router.save(written / "router.json")
    with torch.no_grad():
        light_NK = light(x)
        escalated = agflow.cascade.priors.escalations(light_NK, router.threshold)
        heavy_EK = example[0](x[escalated])
    final = light_NK.clone()
    final[escalated] = (
        agflow.cascade.ensemble.combine(light_NK[escalated], heavy_EK, router.light_weight)
        if answers == "ensemble"
        else heavy_EK
    )
    agflow.cascade.Logits.of(light_NK).save(written / "light.arrow")
    decide = (
        "decide",
        "--router",
        written / "router.json",
        "--light",
        written / "light.arrow",
        "--output",
        written / "decisions.arrow",
    )
    command(*decide)
    first = agflow.cascade.Decisions.load(written / "decisions.arrow")
    np.testing.assert_array_equal(first.escalated, escalated)
    np.testing.assert_array_equal(first.columns["prediction"], light_NK.argmax(1))
    agflow.cascade.Logits.of(heavy_EK).save(written / "heavy.arrow")
    command(*decide, "--heavy", written / "heavy.arrow")
    answered = agflow.cascade.Decisions.load(written / "decisions.arrow")
    assert (
        0 < len(escalated) < 200
        and router.answers == answered.metadata["agflow.answers"] == answers
    )
    np.testing.assert_array_equal(answered.columns["prediction"], final.argmax(1))
    np.testing.assert_array_equal(answered.columns["index"], np.arange(200))


def test_predictions_are_equal_by_both_interfaces(written, example, light):
    """The command hosts the same Python and the same core: the files have the same bytes."""
    images = load_dataset("example:test", preprocessing=example[1], limit=100, seed=0, classes=10)
    agflow.save(light, written / "light", preprocessing=example[1])
    agflow.predict(
        agflow.load(written / "light"),
        example[0],
        DataLoader(images, 32),
        features=True,
    ).save(written / "predictions-python.arrow")
    command(
        "predict",
        "--light",
        written / "light",
        "--heavy",
        "example",
        "--data",
        "example:test",
        "--limit",
        100,
        "--features",
        "--output",
        written / "predictions-go.arrow",
    )
    assert (written / "predictions-go.arrow").read_bytes() == (
        written / "predictions-python.arrow"
    ).read_bytes()


def test_command_hosts_python_without_the_extension(written):
    checks = {check["name"]: check for check in json.loads(command("--json", "doctor").stdout)}
    assert (
        checks["backend"]["ok"] and checks["backend"]["found"] == "host"
    )  # would say so if the extension were loaded, too
    assert backend_name() == "extension"


def test_sums_equal_float64_torch_in_every_bit(example, loader):
    """AGF of a real ViT: the Go sums against numpy float64 over the same activations, in order."""
    from agflow.calibration.hooks import capture
    from agflow.models import adapter_for

    model, _ = example
    layers = [layer for layer in adapter_for(model).layers(model) if layer.kind in ("mlp", "heads")]
    seen = {}
    keep = lambda index, images, y, g: seen.setdefault(index, []).append(
        (y.detach().clone(), g.detach().clone())
    )
    batches = list(loader("train", 0, 64, BATCH_SIZE))
    with capture(model, layers, keep):
        for x, label in batches:
            torch.nn.functional.cross_entropy(model(x), label, reduction="sum").backward()
    columns = agflow.calibrate(model, batches, batches=BATCHES)
    for index, layer in enumerate(layers):
        y, g = (torch.cat(part).double().numpy() for part in zip(*seen[index], strict=True))
        chain = np.zeros(y.shape[1])
        for row in np.abs(y * g):
            chain += row
        unit = chain.reshape(layer.units, layer.unit_width)
        folded = unit[:, 0].copy()
        for channel in range(1, layer.unit_width):
            folded += unit[:, channel]
        np.testing.assert_array_equal(
            columns.columns["sum_abs_yg"][columns.rows_of(layer.name)], folded
        )
