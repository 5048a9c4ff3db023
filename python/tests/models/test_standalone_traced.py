"""The code in the folder of a traced expert, run in a process without agflow."""

import subprocess
import sys

import pytest
import timm
import torch
import torchvision
from torch import nn

from agflow.models import at_image_size, logits_of, save_expert
from agflow.models.account import examined
from agflow.models.copying import copy_of
from agflow.models.image_sizes import known_size, note_size
from agflow.models.slicing import cut_groups

RUN = """
import os, pathlib, re, sys
sys.modules["agflow"] = None
import torch

for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    os.chdir(folder)
    code = re.findall(r"```python\\n(.*?)```", pathlib.Path("README.md").read_text(), re.S)[-1]
    assert "agflow" not in code and max(map(len, code.splitlines())) <= 100
    names = {}
    exec(compile(code, str(folder), "exec"), names)
    with torch.no_grad():
        output = names["model"](torch.load("images.pt"))
    torch.save(getattr(output, "logits", output), "logits.pt")
"""


def changed_resnet():
    model = torchvision.models.resnet18(num_classes=5)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    model.fc = nn.Sequential(nn.Dropout(0.2), nn.Linear(512, 5))
    return model


def hugging_face():
    import transformers

    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=5
    )
    return transformers.ResNetForImageClassification(config)


QUICK = {
    "timm": lambda: timm.create_model("test_resnet", num_classes=5),
    "torchvision": changed_resnet,
    "resized": lambda: at_image_size(timm.create_model("test_efficientnet", in_chans=1), 48),
    "torch": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    ),
    "transformers": hugging_face,
}
ALL = {
    **{
        name: lambda name=name: torchvision.models.get_model(name)
        for name in ("vgg11_bn", "densenet121", "mobilenet_v3_small", "squeezenet1_1", "mnasnet0_5")
        + ("shufflenet_v2_x0_5", "regnet_y_400mf", "efficientnet_b0")
    },
    **{
        name: lambda name=name: torchvision.models.get_model(name, init_weights=False)
        for name in ("googlenet", "inception_v3")
    },
    **{
        f"timm_{name}": lambda name=name: timm.create_model(name)
        for name in ("resnet50", "mobilenetv3_small_050", "efficientnet_b0", "regnety_002")
    },
}


def halved(model):
    adapter, light = examined(model), copy_of(model)
    groups = [group for group in adapter.layers(model) if group.units > 1]
    assert groups
    cut_groups(light, [(group, torch.arange(0, group.units, 2)) for group in groups])
    return light


@pytest.mark.parametrize(
    "makers",
    [QUICK, pytest.param(ALL, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])],
    ids=["quick", "all"],
)
def test_traced_experts_load_in_a_process_without_agflow(makers, tmp_path):
    expected = {}
    for name, make in makers.items():
        torch.manual_seed(0)
        model = make().eval()
        if name != "resized":
            note_size(model, (3, 96, 96))
        light = halved(model)
        save_expert(light, tmp_path / name)
        images = torch.randn(2, *known_size(light))
        torch.save(images, tmp_path / name / "images.pt")
        with torch.no_grad():
            expected[name] = logits_of(light(images))
    subprocess.run([sys.executable, "-c", RUN, tmp_path], check=True, cwd=tmp_path)
    for name, logits in expected.items():
        found = torch.load(tmp_path / name / "logits.pt")
        torch.testing.assert_close(found, logits, atol=1e-5, rtol=1e-5, msg=name)
