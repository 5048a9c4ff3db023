"""The whole pipeline by its command, on the shipped example: files, figures and refusals."""

import json
import math
import signal
import subprocess
import time
import urllib.request
from dataclasses import fields

import polars
import pyarrow as pa
import pytest
import torch
from served import server_process

import agflow
from agflow import commands
from agflow.errors import EmptyError, FileError, InvalidValueError, UnknownLayerError
from agflow.evaluation.timing import time_models
from agflow.models.expert import load_expert
from agflow.recipes import RunOptions, run
from agflow.recipes.report import as_speed_table
from agflow.recipes.results import SLOWER, RunResult

SMALL = (
    "--limit",
    "900",
    "--eval-limit",
    "300",
    "--batches",
    "4",
    "--epochs",
    "1",
    "--tolerance",
    "0.05",
    "--confidence",
    "0.9",
)
TABLES = ("statistics", "plan", "predictions-threshold", "predictions", "curve")


def agflow_command(*arguments, **options):
    return subprocess.run(
        ["agflow", *map(str, arguments)], capture_output=True, text=True, timeout=600, **options
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a small run, and what the command printed."""
    folder = tmp_path_factory.mktemp("run") / "out"
    done = agflow_command("run", *SMALL, "--output", folder)
    assert done.returncode == 0, done.stderr
    assert "cascade" in done.stdout
    return folder, done.stdout


@pytest.fixture(scope="module")
def folder(made):
    return made[0]


def test_run_writes_every_file_and_other_tools_read_them(folder):
    for name in TABLES:
        with pa.memory_map(str(folder / f"{name}.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
        assert table.num_rows > 0
        assert polars.read_ipc(folder / f"{name}.arrow").shape == table.shape
    for picture in (
        "utilities.png",
        "stages.png",
        "cascade.png",
        "reliability.png",
        "escalated.png",
    ):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG")
    assert "| agf |" in (folder / "report.md").read_text()


def test_report_is_consistent_with_the_files(folder, example, loader):
    report = json.loads((folder / "report.json").read_text())
    predictions = agflow.Predictions.load(folder / "predictions.arrow")
    assert report["cascade"]["heavy"] == pytest.approx(predictions.heavy_accuracy)
    ledger = report["cascade"]["ledger"]
    expected = ledger["light_cost"] / ledger["heavy_cost"] + ledger["escalation"]
    assert ledger["charged"] == pytest.approx(expected)
    plan = agflow.Plan.load(folder / "plan.arrow")
    light = load_expert(folder / "light")
    assert agflow.count_macs(light) == plan.macs == ledger["light_cost"]
    assert agflow.evaluate(light, loader("test", 0, 300)).images == 300
    assert set(report["stages"]) == {"agf", "random"}


def test_a_run_begins_with_the_verdict_and_ends_with_what_to_do(made):
    folder, printed = made
    report = json.loads((folder / "report.json").read_text())
    counts, lines = report["counts"], printed.splitlines()
    assert lines[0] == counts["line"] and lines[-1] == report["next"]
    assert counts["guarantee"] in lines[0] and ("LOSS" in lines[0]) == (
        "loss" in (counts["cost"], counts["clock"])
    )
    markdown = (folder / "report.md").read_text().splitlines()
    assert markdown[:3] == ["# agflow: example", "", f"**{counts['line']}**"]
    assert counts["clock"]
    low, high = report["cascade"]["cascade_interval"]
    assert low < report["cascade"]["cascade"] < high
    assert f"({100 * low:.2f} to {100 * high:.2f})" in "\n".join(markdown)


def test_a_checked_run_ends_with_5_unless_it_may_be_deployed(made):
    folder, printed = made
    counts = json.loads((folder / "report.json").read_text())["counts"]
    done = agflow_command("run", *SMALL, "--output", folder, "--check")  # which is there already
    assert done.returncode == (0 if counts["deploy"] else 5) and done.stdout == printed
    complaint = done.stderr.splitlines()[-1]
    assert counts["deploy"] or complaint == f"agflow: --check: {counts['line']}; {counts['cure']}"


@pytest.mark.slow
def test_a_run_that_prunes_the_residual_channels_distils_without_their_features(tmp_path):
    """The light expert's tokens are narrower than the teacher's: the logits alone are distilled."""
    small = (*SMALL, "--limit", "300", "--eval-limit", "64", "--batches", "2")
    done = agflow_command(
        "run", *small, "--groups", "mlp,embed", "--macs", "0.6", "--output", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    assert load_expert(tmp_path / "out" / "light").embed_dim < 128


def test_what_a_run_leaves_is_a_cascade_that_is_loaded_and_served(made, loader):
    folder, printed = made
    counts = json.loads((folder / "report.json").read_text())["counts"]
    assert (f"agflow serve --cascade {folder}" in printed) == (not counts["cure"])
    cascade, (images, _) = agflow.load(folder), next(iter(loader("test", 0, 300)))
    assert cascade.router == agflow.Router.load(folder / "router.json")
    with torch.no_grad():
        expected = cascade(images)
    predictions = agflow.Predictions.load(folder / "predictions.arrow")
    costs = predictions.costs
    assert (cascade.costs.light, cascade.costs.heavy) == (costs.light, costs.heavy)
    tensor = {"name": "images", "datatype": "FP32", "shape": [*images.shape]}
    body = json.dumps({"inputs": [{**tensor, "data": images.flatten().tolist()}]}).encode()
    with server_process(folder) as address:

        def asked(path, body=None):
            with urllib.request.urlopen(f"http://{address}{path}", body, timeout=60) as answer:
                return json.load(answer)

        outputs = {o["name"]: o["data"] for o in asked("/v2/models/out/infer", body)["outputs"]}
        watches = {watch["name"]: watch for watch in asked("/v1/monitor")["watches"]}
    found = torch.tensor(outputs["logits"]).reshape(expected.shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert outputs["class"] == expected.argmax(1).tolist()
    assert watches["agreement"]["off"] == "" or cascade.router.threshold == math.inf


def test_a_run_by_the_clock_routes_by_milliseconds(tmp_path):
    small = {"macs": "0.5", "epochs": 0, "batches": 1, "limit": 64, "eval_limit": 32}
    options = RunOptions(output=str(tmp_path / "out"), costs="measured", **small)
    found = run(options, say=lambda line: None)
    ledger = found.cascade.router.ledger
    assert ledger.cost_unit == "ms" and 0 < ledger.light_cost < 1000 and ledger.heavy_cost > 0
    costs = agflow.load(tmp_path / "out").costs
    assert (costs.light, costs.heavy, costs.unit) == (ledger.light_cost, ledger.heavy_cost, "ms")
    evaluated = found.cascade.evaluation.ledger
    assert found.predictions.costs == costs and evaluated.cost_unit == "ms"
    assert evaluated.heavy_cost == ledger.heavy_cost
    assert "1.000x ms" in found.summary and "x MACs" not in found.summary
    assert "| expected ms per image |" in (tmp_path / "out" / "report.md").read_text()
    with pytest.raises(InvalidValueError, match="costs is 'euro', expected macs or measured"):
        RunOptions(costs="euro")


def test_repair_brings_accuracy_back(folder):
    stages = json.loads((folder / "report.json").read_text())["stages"]["agf"]
    assert stages["repaired"]["top1"] > stages["cut"]["top1"]


def test_a_second_run_overwrites_its_folder_but_no_foreign_one(folder, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    done = agflow_command("run", *SMALL, "--output", tmp_path)
    assert done.returncode == 1, done.stderr
    assert "letter" not in done.stderr and str(tmp_path) in done.stderr
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_ctrl_c_ends_with_130_and_leaves_no_half_file(tmp_path):
    process = subprocess.Popen(
        ["agflow", "run", "--output", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "out" / "statistics.arrow").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert [
        path.name for path in (tmp_path / "out").iterdir() if path.name.startswith((".", "tmp"))
    ] == []
    agflow.Statistics.load(tmp_path / "out" / "statistics.arrow")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model": "timm:vit_nothing"}, InvalidValueError, "vit_nothing"),
        (
            {"model": "timm:deit_tiny_patch16_224", "weights": "missing.safetensors"},
            FileError,
            "missing.safetensors",
        ),
        ({"data": "parquet:missing.parquet"}, FileError, "missing.parquet"),
        ({"data": "floppy:a"}, InvalidValueError, "floppy"),
        ({"ignored_layers": ["blocks.99.mlp"]}, UnknownLayerError, "blocks.99.mlp"),
        ({"limit": 1}, EmptyError, "images"),
        ({"eval": "example:train"}, InvalidValueError, "test images"),
        ({"macs": "0.5", "pruning_ratio": 0.5}, InvalidValueError, "pruning"),
        ({"epoch": 3}, InvalidValueError, "epoch"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_result(tmp_path, options, error, words):
    """What the command asks of Python, in this process: how errors become exit codes is Go's."""
    given = {"batches": 1, "limit": 64, **options, "output": str(tmp_path / "out")}
    with pytest.raises(error, match=words) as caught:
        commands.run(json.dumps(given))
    assert "\n" not in str(caught.value)
    left = {path.name for path in tmp_path.rglob("*.arrow")}
    assert left <= {"statistics.arrow"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "--macs", "0.001", "--limit", "64", "--batches", "1"], 3, "MACs"),
        (["run", "--macs", "0.5", "--pruning-ratio", "0.5"], 2, "pruning"),
        (["run", "--epoch", "3"], 2, "epoch"),
        (
            ["plan", "--scores", "missing.arrow", "--macs", "0.5", "--output", "p.arrow"],
            1,
            "missing.arrow",
        ),
        (["verify", __file__], 3, "test_pipeline.py"),
    ],
)
def test_bad_input_at_the_command_is_one_sentence_and_an_exit_code(
    tmp_path, arguments, code, words
):
    done = agflow_command(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    last = [line for line in done.stderr.splitlines() if line.strip()][-1]
    assert words in last, done.stderr
    assert "Traceback" not in done.stderr and "goroutine" not in done.stderr
    left = {path.name for path in tmp_path.rglob("*.arrow")}
    assert left <= {"statistics.arrow"}


@pytest.mark.bench
def test_an_expert_slower_than_the_dense_model_is_called_a_failure(example):
    """Timed for real: the slow one runs the model twice."""
    model = example[0]
    slow, images = (
        lambda x: (model(x), model(x)),
        torch.randn(64, *agflow.models.adapter_for(model).input_size(model)),
    )

    def timed(light, heavy):
        timings = time_models({"heavy": heavy, "light": light, "cascade": heavy}, images, batch=32)
        return RunResult(**{field.name: None for field in fields(RunResult)} | {"timings": timings})

    assert timed(slow, model).slower and SLOWER in as_speed_table(timed(slow, model))
    assert not timed(model, slow).slower and SLOWER not in as_speed_table(timed(model, slow))
