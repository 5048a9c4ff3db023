"""Models are tried in processes of their own, and how a trial ended is told apart."""

import csv
import json
import subprocess

import pytest
import timm
import torch
import transformers

import agflow
from agflow.bench import coverage, coverage_models, coverage_page, coverage_trial
from agflow.bench.coverage_peer import peer_trial
from agflow.errors import CorruptFileError, InternalError, InvalidValueError

OWN = """
import os
import torch
from torch import nn

def sized(*layers):
    model = nn.Sequential(*layers)
    model.input_size = (3, 16, 16)
    return model

def small():
    tail = nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    return sized(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), *tail)

def linear():
    return sized(nn.Flatten(), nn.Linear(768, 5))

def crash():
    os.abort()

def memory():
    return sized(nn.Flatten(), nn.Linear(768, 1 << 22))
"""
SMALL = "own_models:small"
VERSIONS = {"agflow": "1.0", "torch": "2.9"}


@pytest.fixture(autouse=True)
def own_models(tmp_path, monkeypatch):
    """A folder with a module of models, where the processes look for it."""
    (tmp_path / "own_models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


def tried(spec, **options):
    return coverage._in_process("agflow", spec, coverage.CoverageOptions(**options))


def ours(outcome="ok", **more):
    row = {"outcome": outcome, "date": "2026-01-02", "versions": VERSIONS, "limit": 9, **more}
    return row if outcome == "ok" else {"reason": "a reason", **row}


FOUND = {
    "parameters": 1_500_000,
    "family": "traced",
    "class": "ResNet",
    "part": "",
    "groups": {"conv": 8, "stage": 4},
    "barriers": [["fc", "the classes"], ["a|b", "read by aten.sort"]],
    "loss": "self",
    "macs": 0.69,
    "equal": True,
    "loads": True,
    "trace_s": 1.5,
    "seconds": 9.0,
    "step": "",
}
LISTS = {"thirty": ["timm:b", "timm:a", "timm:d", "timm:e"], "models": ["own:model"]}
ROWS = {
    "timm:a": {"model": "timm:a", "agflow": ours(**FOUND)},
    "timm:b": {
        "model": "timm:b",
        "agflow": ours("refused", reason="BNet has 12 heads", **{"class": "BNet"}),
        "peer": {"outcome": "failed", "reason": "a shape", "versions": {"torch-pruning": "1.6"}},
    },
    "timm:e": {
        "model": "timm:e",
        "agflow": ours("refused", reason="ENet has 3 heads", **{"class": "ENet"}),
    },
}


def test_the_command_tries_a_model_and_writes_page_and_table(tmp_path):
    words = f"agflow bench coverage --models {SMALL},own_models:linear --output found --json"
    done = subprocess.run(words.split(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    small, linear = (row["agflow"] for row in found["rows"])
    assert small["outcome"] == "ok" and small["equal"] and small["loads"], small
    assert small["groups"] == {"conv": 2} and small["macs"] <= 0.7 and small["loss"] == "self"
    assert small["barriers"] == [["6", "the classes"]] and small["parameters"] == 1653
    assert linear["outcome"] == "refused" and "nothing of Sequential can be" in linear["reason"]
    assert found["counts"]["models"]["ok"] == 1 and found["counts"]["models"]["refused"] == 1
    page = (tmp_path / "found" / "README.md").read_text()
    assert "| models | 2 | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 |" in page
    with open(found["csv"], newline="") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    assert rows["small"]["equal"] == "yes" and rows["small"]["kept"] == "6: the classes"
    assert rows["linear"]["outcome"] == "refused" and rows["linear"]["reason"] == linear["reason"]


def test_lines_of_code_do_not_part_reasons():
    starts = "the model does not run without them: the code of blocks.{}.attn "
    ends = (
        "reshapes by the width of its input: C in `x = x.reshape(B, N, C)`",
        "reshapes by the width of its input: dim in `return self.proj(x.view(-1, dim))`",
        "splits by sizes that do not follow them in `q, kv = qkv.split(sizes)`",
    )
    barriers = [["blocks.0", starts.format(i) + end] for i, end in enumerate(ends)]
    found = coverage_page._kept_reasons(
        [{"model": "some", "agflow": {"outcome": "ok", "barriers": barriers}}]
    )
    assert "the code of N reshapes by the width of its input | 2 | 1 |" in found
    assert "the code of N splits by sizes that do not follow them | 1 | 1 |" in found


def test_a_crash_is_no_refusal():
    found = tried("own_models:crash")
    assert found["outcome"] == "failed" and found["step"] == "make"
    assert found["reason"].startswith("its process ended with SIGABRT at the step 'make'")


def test_the_kernel_ends_what_takes_too_long():
    found = tried(SMALL, seconds=1)
    assert found["outcome"] == "too slow" and found["reason"].startswith("more than 1 s, at the")


def test_memory_that_runs_out_is_told_apart():
    assert tried("own_models:memory", memory=1)["outcome"] == "too large"


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (InvalidValueError("it is so"), "refused", "it is so"),
        (InternalError("a defect"), "failed", "InternalError: a defect"),
        (ImportError("it needs natten\nget it"), "not installed", "it needs natten"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (RuntimeError(""), "failed", "RuntimeError: without a message"),
        (RuntimeError("you can't allocate memory here"), "too large", "needs more memory than"),
        (coverage_trial.WrongResult("the cut differs"), "WRONG", "the cut differs"),
    ],
)
def test_outcomes_of_exceptions(error, outcome, reason):
    def trial(spec, report):
        raise error

    found = coverage_trial._outcome(trial, "spec", print)
    assert found["outcome"] == outcome and found["reason"].startswith(reason)


def test_a_cut_that_differs_from_the_mask_is_seen():
    made = coverage_models.made(SMALL)
    images = torch.randn(4, *made.size)
    planned = agflow.plan(agflow.calibrate(made.model, [images], loss="self"), macs=0.7)
    light = agflow.prune(made.model, planned, compensate="none")
    assert coverage_trial._difference(made, light, planned) < 1e-12
    with torch.no_grad():
        light[2].weight[0] *= 1.001
    assert coverage_trial._difference(made, light, planned) > coverage_trial.TOLERANCE


def test_a_model_is_made_alike_each_time_and_nothing_hides_behind_zeros():
    first, second = (coverage_models.made("torchvision:resnet18").model for _ in range(2))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert not first.training
    norm = first.layer1[0].bn1
    assert norm.bias.all() and not torch.equal(norm.weight, torch.ones(64))


def test_of_a_detector_the_backbone_is_measured():
    made = coverage_models.made("torchvision:ssdlite320_mobilenet_v3_large")
    assert made.part == "backbone" and made.size == (3, 320, 320)
    assert not any("head" in name for name, _ in made.model.named_modules())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("resnet18", "expected library:name, such as timm:resnet18"),
        ("timm:resnet1", "timm has no model 'resnet1'"),
        ("torchvision:resnet1", "torchvision has no model 'resnet1'"),
        ("transformers:ViT", "transformers has no model 'ViT'"),
        ("nowhere_at_all:model", "its module cannot be imported"),
    ],
)
def test_unknown_models_are_refused(spec, said):
    with pytest.raises(InvalidValueError, match=said):
        coverage_models.made(spec)


def test_every_module_of_timm_is_listed_by_a_model_that_it_has():
    listed = coverage_models._data("timm")
    assert listed.keys() == set(timm.list_modules())
    assert [
        name for module, name in listed.items() if name not in timm.list_models(module=module)
    ] == []


def test_every_class_of_transformers_for_images_is_listed():
    from transformers.models.auto import modeling_auto

    known = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
    classes = {name for one in known for name in ([one] if isinstance(one, str) else one)}
    entries = coverage_models._data("transformers")
    assert set(entries["classifiers"]) == classes
    assert all(hasattr(transformers, entry["class"]) for entry in entries["published"].values())


def test_the_lists():
    sizes = {name: len(coverage_models.models_of(name)) for name in coverage_models.LISTS}
    assert sizes["thirty"] == len({*coverage_models.THIRTY}) == 30
    assert sizes["torchvision"] >= 92 and sizes["timm"] >= 98 and sizes["transformers"] >= 46
    torchvision = coverage_models.models_of("torchvision")
    entries = coverage_models._data("transformers")["published"]
    for spec in coverage_models.THIRTY:
        library, _, name = spec.partition(":")
        assert spec in torchvision or name in entries or timm.is_model(name), spec
        assert library in coverage_models.LIBRARIES
    with pytest.raises(InvalidValueError, match="no list 'forty', expected some of: torchvision"):
        coverage_models.models_of("forty")


def test_page_and_table_of_rows():
    counted = coverage_page.counts(LISTS, ROWS)
    assert counted["thirty"] == {
        **dict.fromkeys(coverage_page.OUTCOMES, 0),
        **{"models": 4, "ok": 1, "refused": 2, "not measured": 1, "peer": 1, "peer_ok": 0},
    }
    assert coverage_page.summary(counted) == [
        "thirty: 1 ok, 2 refused, 1 not measured of 4; torch-pruning 0 of 1",
        "models: 1 not measured of 1",
    ]
    page = coverage_page.page(LISTS, ROWS, ["x is not installed"], "agflow bench coverage")
    assert "x is not installed" in page
    assert "| thirty | 4 | 1 | 2 | 0 | 0 | 0 | 0 | 0 | 1 | 0 of 1 |" in page
    # Reasons that differ by numbers and class names alone stand together.
    assert "| refused | 2 | `timm:b`, `timm:e` | BNet has 12 heads |" in page
    assert "| a | 1.50 M | 8 conv, 4 stage | 2 | 0.69x | yes | yes | 1.5 | 9.0 | ok |  |" in page
    assert "Not measured: `timm:d`." in page and "Not measured: `own:model`." in page
    assert "`agflow bench coverage` (2026-01-02; agflow 1.0, torch 2.9, torch-pruning 1.6;" in page
    rows = list(csv.DictReader(coverage_page.table(LISTS, ROWS).splitlines()))
    assert [row["model"] for row in rows] == ["a", "b", "d", "e", "model"]
    assert rows[0]["kept"] == "fc: the classes; a|b: read by aten.sort"
    assert rows[0]["groups"] == "8 conv, 4 stage" and rows[0]["parameters"] == "1500000"
    assert rows[1]["peer"] == "failed" and rows[1]["peer_reason"] == "a shape"
    assert rows[2]["outcome"] == "not measured" and rows[2]["macs"] == ""


def results_of(tmp_path, rows):
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_run_goes_on_where_the_last_one_ended(tmp_path):
    """What is known is not tried again, but for what took too long and has more time now."""
    slow = {"model": SMALL, "agflow": ours("too slow", limit=1)}
    path = results_of(tmp_path, [slow, {**ROWS["timm:a"], "model": "own_models:crash"}])
    said = []
    options = {"models": (SMALL, "own_models:crash"), "results": str(path), "memory": 6}
    known = coverage.measure(coverage.CoverageOptions(seconds=1, **options), said.append)
    assert said == [] and [row["agflow"]["outcome"] for row in known["rows"]] == ["too slow", "ok"]
    again = coverage.measure(coverage.CoverageOptions(seconds=60, **options), said.append)
    assert [row["agflow"]["outcome"] for row in again["rows"]] == ["ok", "ok"]
    assert len(said) == 1 and said[0].startswith(f"{SMALL}: ok, ")
    assert len(path.read_text().splitlines()) == 3
    assert coverage.text(again).splitlines()[0] == "models: 2 ok of 2"


def test_results_of_something_else_are_refused(tmp_path):
    path = results_of(tmp_path, [ROWS["timm:a"], {"model": "timm:b"}])
    options = coverage.CoverageOptions(models=("timm:a",), results=str(path))
    with pytest.raises(CorruptFileError, match="line 2 of the results .* is none that"):
        coverage.measure(options)


def test_a_library_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setattr(coverage, "LIBRARIES", ("timm", "torchvision", "no_such_library"))
    monkeypatch.setattr(coverage, "LISTS", {"thirty": ""})
    lists, missing = coverage._lists(coverage.CoverageOptions())
    assert missing == ["no_such_library is not installed, its models are left out"]
    assert len(lists["thirty"]) == 30


@pytest.mark.parametrize("spec", [SMALL, "timm:test_vit"])
def test_the_peer_prunes_convolutions_and_packed_heads(spec):
    found = {}
    peer_trial(spec, found.update)
    assert 0.4 < found["macs"] < 0.9 and found["step"] == ""
