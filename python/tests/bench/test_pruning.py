"""All contenders get the same MACs and images; a model slower than the dense one is a failure."""

import copy
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from timm.layers import SwiGLU
from timm.models.vision_transformer import VisionTransformer
from torch.utils.data import TensorDataset

from agflow.bench import contenders, pruning
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models import count_macs

SMALL = pruning.PruningBenchOptions(calibration=16, tune=8, eval_limit=20, rounds=1)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=32, patch_size=4, num_classes=10, embed_dim=64, depth=2, num_heads=4
    ).eval()


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(16, 3, 32, 32, generator=generator), torch.arange(16) % 10)


def test_torch_counts_the_macs_that_agflow_counts(vit):
    assert contenders.macs_of(vit) == count_macs(vit)


@pytest.mark.parametrize("name", contenders.CONTENDERS)
def test_every_contender_comes_near_the_same_macs(vit, images, name):
    """Within 5 %, for a small model has few widths to choose from; the dense model is unchanged."""
    before, macs = copy.deepcopy(vit.state_dict()), round(0.7 * count_macs(vit))
    light = contenders.CONTENDERS[name].step(vit, macs, 8, 0)(images)
    assert contenders.macs_of(light) == pytest.approx(macs, rel=0.05)
    assert light(images[:4][0]).shape == (4, 10)
    assert all(torch.equal(before[key], value) for key, value in vit.state_dict().items())
    whole = all(block.attn.num_heads == 4 for block in light.blocks)
    assert whole == ("heads" not in name)


@pytest.fixture(scope="module")
def found():
    """The two ways from the command's default model, each in its process."""
    return pruning.measure(
        replace(SMALL, contenders=("agflow mlp", "torch-pruning magnitude all")),
        say=lambda line: None,
    )


@pytest.mark.bench
def test_a_row_has_every_figure(found):
    assert json.loads(json.dumps(found)) == {
        **found,
        "options": json.loads(json.dumps(found["options"])),
    }
    for row in found["contenders"]:
        assert (
            row["macs"] == pytest.approx(found["target_macs"], rel=0.02)
            and row["params"] < found["params"]
        )
        assert row["cut"]["images"] == row["tuned"]["images"] == found["dense"]["images"] == 20
        assert row["seconds"] > 0 and row["peak_memory"] > 0 and row["search_seconds"] >= 0
        assert [one["batch"] for one in row["speed"]] == [1, 32]
    assert all(
        name in pruning.text(found) for name in ("agflow mlp", "torch-pruning magnitude all")
    )


@pytest.mark.bench
def test_slower_than_the_dense_model_is_a_failure(found):
    row = {**found["contenders"][0], "name": "odd widths", "slower": [1, 32]}
    assert "FAILURE: slower than the dense model at batch 1 and 32" in pruning.text(
        {**found, "contenders": [row]}
    )
    off = {**row, "slower": [], "macs": round(1.05 * found["target_macs"])}
    assert "+5.0 % off the MACs of the others" in pruning.text({**found, "contenders": [off]})
    hopeless = {"name": "mlp", "error": "no plan reaches 1 MAC"}
    assert "not possible: no plan reaches 1 MAC" in pruning.text(
        {**found, "contenders": [hopeless]}
    )


def test_the_plot_has_a_line_a_contender_from_the_dense_model_on():
    def at(share, **accuracies):
        rows = [{"name": name, "cut": {"among_present": top1}} for name, top1 in accuracies.items()]
        return {
            "model": "tiny",
            "macs": 100,
            "target_macs": 100 * share,
            "dense": {"among_present": 0.7, "classes": 3},
            "contenders": rows,
        }

    found = [at(0.5, agflow=0.6, random=0.2), at(0.75, agflow=0.65)]
    lines = pruning.plot(found).get_lines()
    points = [list(zip(*line.get_data(), strict=True)) for line in lines[:2]]
    assert points == [[(1.0, 0.7), (0.75, 0.65), (0.5, 0.6)], [(1.0, 0.7), (0.5, 0.2)]]


def test_slower_means_in_every_round(monkeypatch):
    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return torch.zeros(1), 0

    slow = torch.nn.Identity()
    slow.register_forward_pre_hook(
        lambda *_: [torch.zeros(64, 64) @ torch.zeros(64, 64) for _ in range(200)] and None
    )
    speed = pruning._speed(torch.nn.Identity(), slow, Images(), batch=1, rounds=2)
    assert speed["gain"]["max"] < 1 and speed["light"] < speed["dense"]


def test_refusals():
    with pytest.raises(
        InvalidValueError, match="no contender 'lamp', expected some of: agflow mlp"
    ):
        pruning.measure(replace(SMALL, contenders=("lamp",)))
    with pytest.raises(InvalidValueError, match="give one budget"):
        pruning.measure(replace(SMALL, macs="0.5", pruning_ratio=0.5))
    with pytest.raises(InvalidValueError, match="rounds 0"):
        pruning.measure(replace(SMALL, rounds=0))
    with pytest.raises(UnsupportedModelError, match="torch-pruning's recipe is written for it"):
        pruning._check_model(
            VisionTransformer(
                img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, mlp_layer=SwiGLU
            )
        )


@pytest.mark.bench
def test_the_command_hands_over_every_flag():
    command = [
        sys.executable,
        "-m",
        "agflow",
        "bench",
        "pruning",
        "--contenders",
        "agflow mlp,lamp",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2 and "there is no contender 'lamp'" in done.stderr, done.stderr
