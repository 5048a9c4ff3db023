"""Every command that takes a model takes one of every library, and the experts made of it."""

import json
import os
import subprocess
import sys

import pytest

import agflow
from agflow import commands

ZOO = """
import timm, torch, transformers
from torch import nn

SIZES = {"image_size": 28, "patch_size": 7, "num_hidden_layers": 2, "num_attention_heads": 4,
         "hidden_size": 32, "intermediate_size": 64, "num_labels": 10}

def vit():
    torch.manual_seed(0)
    return transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES))

def deit():
    torch.manual_seed(0)
    config = transformers.DeiTConfig(**SIZES)
    return transformers.DeiTForImageClassificationWithTeacher(config)

def grey():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=28, patch_size=7, embed_dim=32,
                             depth=2, num_heads=4, num_classes=10, in_chans=1)

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(width, 32, 3, 1, 1), nn.BatchNorm2d(32)
        self.conv2, self.norm2 = nn.Conv2d(32, width, 3, 1, 1), nn.BatchNorm2d(width)

    def forward(self, x):
        return (x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))).relu()

def cnn():
    torch.manual_seed(0)
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, 4), Block(16), Block(16), *pooled)
    model.input_size = 3, 28, 28
    return model
"""
IMAGES = {"limit": 32, "batch_size": 16, "seed": 0}
COMPUTING = {"device": "cpu", "dtype": "float32", "workers": 0}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "zoo_of_commands.py").write_text(ZOO)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def call(name, **options):
    return json.loads(getattr(commands, name)(json.dumps({**COMPUTING, **options})))


@pytest.mark.parametrize(
    "kind, given",
    [
        ("vit", {}),
        ("cnn", {}),
        pytest.param("deit", {}, marks=pytest.mark.slow),
        pytest.param("grey", {"mean": ["0.3"], "std": ["0.3"]}, marks=pytest.mark.slow),
    ],
)
def test_all_commands(zoo, tmp_path, kind, given):
    model = {"model": f"zoo_of_commands:{kind}", **given}
    data = {"data": "example:test", **IMAGES}
    statistics, light = str(tmp_path / "statistics.arrow"), str(tmp_path / "light")
    shrunk = call("shrink", **model, **data, macs="0.7", output=light)
    assert shrunk["macs"] <= 0.7 * shrunk["dense_macs"]
    assert shrunk["images"] == {"calibration": 24, "held_out": 8}
    assert call("evaluate", model=light, **data, offset=9)["images"] == 32
    assert call("evaluate", **model, **data)["images"] == 32
    call(
        "calibrate",
        **model,
        **data,
        output=statistics,
        batches=2,
        groups=["mlp", "heads", "conv"],
        loss="labels",
        weight_gradients=False,
        nonfinite="refuse",
    )
    plan = agflow.plan(agflow.Statistics.load(statistics), macs=0.7)
    plan.save(tmp_path / "plan.arrow")
    of_plan = {"plan": str(tmp_path / "plan.arrow"), "output": light}
    for compensate in ("none", "ridge"):
        call("prune", **model, **data, **of_plan, compensate=compensate)
    assert call("evaluate", model=light, **data)["images"] == 32
    heavy = {"heavy": model["model"], **given, **data}
    training = {"epochs": 1, "lr": 1e-4, "distill": 0.5, "features": 0.0, "accumulate": 1}
    tuned = call(
        "finetune",
        **heavy,
        light=light,
        output=str(tmp_path / "tuned"),
        held_out="0.25",
        **training,
    )
    held_out = tuned["held_out"]
    assert held_out["images"] == 8 and held_out["best"] >= held_out["start"]
    predicted = {"output": str(tmp_path / "predictions.arrow"), "features": False}
    found = call("predict", **heavy, light=light, **predicted, second_view=False)
    assert found["images"] == 32
    for made in (model, {"model": light}):
        call("export", **made, data=None, output=str(tmp_path / "model.pt2"), opset=18)
    latency = {"batch": 2, "rounds": 1, "output": str(tmp_path / "latency.arrow")}
    assert call("bench_layers", **model, **latency)["sizes"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit", "deit", "cnn"])
def test_the_whole_pipelines(zoo, tmp_path, kind):
    model, few = f"zoo_of_commands:{kind}", {"batch_size": 16, "limit": 96, "epochs": 1}
    run = {"eval_limit": 32, "batches": 2, "macs": "0.7", "output": str(tmp_path / "run")}
    assert call("run", model=model, **few, **run)["output"] == str(tmp_path / "run")
    designed = {"macs": [0.7, 1.0], "image_sizes": [28], "output": str(tmp_path / "cascade")}
    call("design", model=model, data="example:test", shared_blocks=[0], **few, **designed)
    assert (tmp_path / "cascade").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("kind, given", [("vit", []), ("grey", ["--mean", "0.3", "--std", "0.3"])])
def test_the_command_itself(zoo, kind, given):
    arguments = ["--model", f"zoo_of_commands:{kind}", "--data", "example:test", "--limit", "16"]
    path = os.pathsep.join(filter(None, [str(zoo), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        ["agflow", "evaluate", *arguments, *given],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "of 16 images are correct" in done.stdout
