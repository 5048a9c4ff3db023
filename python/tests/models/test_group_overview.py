"""What can be pruned of a model, and what is kept and why, from the model to the plan."""

import json

import pytest
import torch
from torch import nn

import agflow
from agflow import commands
from agflow.models import describe_groups


class Sorted(nn.Module):
    """Two convolutions; between the second and the classes the channels are sorted."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(24, 10)
        self.input_size = 3, 12, 12

    def forward(self, x):
        x = self.second(self.norm(self.first(x)).relu())
        return self.head(x.mean((2, 3)).sort(1).values)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Sorted().eval()


class SortedLinear(nn.Sequential):
    """The same of linear layers."""

    def __init__(self):
        super().__init__(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 24))
        self.head = nn.Linear(24, 10)
        self.input_size = 3, 2, 2

    def forward(self, x):
        for layer in list(self)[:3]:
            x = layer(x.flatten(1))
        return self.head(x.sort(1).values)


def test_groups_and_what_is_kept(model):
    overview = describe_groups(model)
    assert [(group.name, group.kind, group.units) for group in overview.groups] == [
        ("first", "conv", 16)
    ]
    lines = str(overview).splitlines()
    assert lines[1].startswith("first: conv, 16 units, each ")
    assert lines[2:5] == [
        "  producer  first.weight[0]",
        "  through   first.bias[0], norm.weight+bias+running_mean+running_var[0]",
        "  consumer  second.weight[1]",
    ]
    kept = "second: 24 channels kept, read by aten.sort"
    assert lines[5] == "kept as they are:" and f"  {kept}" in lines
    read = json.loads(json.dumps(overview.to_json()))
    assert read["groups"][0]["members"][0] == {
        "name": "first.weight", "axis": 0, "role": "producer", "runs": [[0, 1, 1, 0]],
    }  # fmt: skip
    assert {"name": "second", "channels": 24, "reason": "read by aten.sort"} in read["kept"]


def test_a_plan_says_what_it_could_not_touch(tmp_path):
    batch = torch.randn(4, 3, 2, 2), torch.arange(4)
    plan = agflow.plan(agflow.calibrate(SortedLinear().eval(), [batch]), pruning_ratio=0.5)
    kept = "2: 24 channels kept, read by aten.sort"
    assert kept in plan.kept_channels and kept in str(plan) and kept in plan._repr_html_()
    plan.save(tmp_path / "plan.arrow")
    assert agflow.Plan.load(tmp_path / "plan.arrow").kept_channels == plan.kept_channels
    groups = json.loads(plan.metadata["agflow.channel_groups"])
    assert list(groups) == ["0"] and groups["0"]["kind"] == "mlp"


def test_models_of_declared_families_keep_nothing(example):
    overview = describe_groups(example[0])
    assert overview.kept == () and "kept" not in str(overview)
    assert "6 mlp" in str(overview).splitlines()[0]


def test_the_command_describes_a_model_without_its_published_weights():
    found = json.loads(
        commands.inspect_model(json.dumps({"model": "timm:test_resnet", "image_size": 64}))
    )
    assert found["image_size"] == [3, 64, 64]
    assert {group["kind"] for group in found["groups"]} >= {"conv", "stage"}
    assert found["summary"].startswith(f"test_resnet at 3x64x64: {len(found['groups'])} groups (")
    assert found["kept"] == [{"name": "fc", "channels": 1000, "reason": "the classes"}]
