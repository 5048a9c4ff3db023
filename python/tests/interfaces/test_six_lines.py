"""The six lines of the first page, in another folder and with models that agflow does not name."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_model
from torch.utils.data import DataLoader, Subset

import agflow
from agflow.data import Preprocessing

MODELS = """
import timm, torchvision, transformers

def of_timm():
    return timm.create_model("vit_small_patch32_224", img_size=28, patch_size=7, in_chans=1,
                             embed_dim=48, depth=4, num_heads=4, num_classes=10)

def of_torchvision():
    return torchvision.models.VisionTransformer(28, 7, 4, 4, 48, 96, num_classes=10)

def of_transformers():
    return transformers.ViTForImageClassification(transformers.ViTConfig(
        image_size=28, patch_size=7, num_hidden_layers=4, num_attention_heads=4, hidden_size=48,
        intermediate_size=96, num_labels=10))
"""
GREY = {"mean": (0.286,), "std": (0.353,)}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with a module of one's own, in which the command works."""
    (tmp_path / "models_of_mine.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("models_of_mine", None)


def six_lines(model, *given):
    """Results of the lines by command; the last of two predictions."""
    few = ["--data", "example:train", "--limit", "1200"]
    lines = [
        ["shrink", "--model", model, *given, *few, "--macs", "0.5", "--output", "cut/"],
        ["finetune", "--light", "cut/", "--heavy", model, *given, *few]
        + ["--features", "4", "--lr", "0.001", "--output", "light/"],
        ["predict", "--light", "light/", "--heavy", model, *given, "--data", "example:train"]
        + ["--offset", "2400", "--output", "predictions.arrow"],
        ["route", "--predictions", "predictions.arrow", "--tolerance", "0.02", "--check"],
        ["predict", "--light", "light/", "--heavy", model, *given, "--output", "test.arrow"],
        ["evaluate-router", "--router", "router.json", "--predictions", "test.arrow", "--check"],
    ]
    found = {}
    for line in lines:
        done = subprocess.run(["agflow", *line, "--json"], capture_output=True, text=True)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        found[line[0]] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["of_timm", "of_torchvision", "of_transformers"])
def test_the_six_lines_gain_with_models_of_ones_own(workplace, kind, capsys):
    import models_of_mine

    torch.manual_seed(0)
    heavy = getattr(models_of_mine, kind)()
    channels = 1 if kind == "of_timm" else 3
    given = {name: values * channels for name, values in GREY.items()}
    preprocessing = Preprocessing((28, 28), **given)
    images = agflow.load_dataset("example:train", preprocessing=preprocessing, classes=10, seed=0)
    training = DataLoader(Subset(images, range(1200)), 64, shuffle=True)
    agflow.finetune(heavy, training, epochs=20, lr=3e-3)
    model = f"models_of_mine:{kind}"
    options = [part for name in given for part in (f"--{name}", ",".join(map(str, given[name])))]
    if kind == "of_transformers":
        heavy.save_pretrained("heavy")
        model = "hf:heavy"
    else:
        save_model(heavy, "heavy.safetensors")
        options += ["--weights", "heavy.safetensors"]
    found = six_lines(model, *options)
    shrunk, tuned = found["shrink"], found["finetune"]["held_out"]
    assert shrunk["macs"] <= 0.5 * shrunk["dense_macs"] and shrunk["images"]["held_out"] == 300
    assert tuned["best"] >= tuned["start"]
    evaluation = agflow.evaluate_router(
        agflow.Predictions.load("test.arrow"), agflow.Router.load("router.json")
    )
    assert evaluation.counts.deploy and evaluation.ledger.charged < 1
    with capsys.disabled():
        print(f"\n{kind}: {shrunk['accuracy']}, dense {shrunk['dense_accuracy']}; {tuned}")
        print(evaluation)
    assert os.listdir(workplace)
