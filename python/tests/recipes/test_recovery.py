"""The commands finetune, evaluate and export on the shipped example."""

import json

import pytest
import torch

import agflow
from agflow import commands
from agflow.errors import InvalidValueError
from agflow.models.expert import expert_preprocessing, load_expert, save_expert

EVALUATE = {"batch_size": 64, "data": "example:test", "limit": 200, "seed": 0}
FINETUNE = {
    "heavy": "example",
    "data": "example:train",
    "batch_size": 32,
    "limit": 128,
    "seed": 0,
    "epochs": 1,
    "lr": 1e-3,
    "distill": 0.9,
    "features": 0.0,
    "accumulate": 2,
}


def call(command, **options):
    return json.loads(command(json.dumps(options)))


@pytest.fixture
def expert(light, example, statistics, tmp_path):
    save_expert(
        light, tmp_path / "light", agflow.plan(statistics, macs=0.35), preprocessing=example[1]
    )
    return str(tmp_path / "light")


def test_finetune_then_evaluate(expert, example, loader, tmp_path):
    tuned = str(tmp_path / "tuned")
    options = {**FINETUNE, "light": expert, "output": tuned, "checkpoint": str(tmp_path / "run")}
    first = call(commands.finetune, **options)
    weights = load_expert(tuned).state_dict()
    assert (
        len(first["history"]) == 1
        and first["output"] == tuned
        and not torch.equal(weights["head.weight"], load_expert(expert).state_dict()["head.weight"])
    )
    assert (
        expert_preprocessing(tuned) == example[1]
        and (tmp_path / "tuned" / "plan.arrow").read_bytes()
        == (tmp_path / "light" / "plan.arrow").read_bytes()
    )

    again = call(commands.finetune, **options)  # all of it from the checkpoint
    assert again == first and all(
        torch.equal(tensor, weights[name])
        for name, tensor in load_expert(tuned).state_dict().items()
    )

    found = call(commands.evaluate, model=tuned, **{**EVALUATE, "limit": None})
    assert (found["top1"], found["images"]) == (
        agflow.evaluate(load_expert(tuned), loader("test", 0, 1000)).top1,
        1000,
    )
    assert f"{100 * found['top1']:.2f} % of 1000 images" in found["summary"]


def test_export_compares_on_real_images(expert, tmp_path):
    found = call(
        commands.export,
        model=expert,
        output=str(tmp_path / "light.pt2"),
        data="example:test",
        opset=18,
        seed=0,
    )
    assert found["difference"] < 1e-5
    exported, images = torch.export.load(tmp_path / "light.pt2").module(), torch.randn(5, 1, 28, 28)
    torch.testing.assert_close(exported(images), load_expert(expert)(images), atol=1e-5, rtol=0)
    with pytest.raises(InvalidValueError, match="light.bin"):
        call(commands.export, model=expert, output=str(tmp_path / "light.bin"), opset=18)
