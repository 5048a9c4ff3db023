"""Models that run parts of themselves again in the backward pass: measured once, as without."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import agflow
from agflow.errors import UnsupportedModelError

VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 32, "num_heads": 2}
MODELS = {
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=4, **VIT),
    "resnet": lambda: timm.create_model("resnet10t", num_classes=4),
    "convnext": lambda: timm.create_model(
        "convnext_atto", num_classes=4, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)
    ),
}


@pytest.mark.parametrize("kind", MODELS)
def test_checkpointing_of_timm_changes_no_bit_and_stays_on(kind):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    images = torch.randn(4, 3, 32, 32)
    options = {"batches": 2, "loss": "self"}
    plain = agflow.calibrate(model, [images[:2], images[2:]], **options)
    model.set_grad_checkpointing()
    flagged = [name for name, m in model.named_modules() if getattr(m, "grad_checkpointing", 0)]
    found = agflow.calibrate(model, [images[:2], images[2:]], **options)
    for column in ("rows", "sum_abs_yg", "sum_y2"):
        assert np.array_equal(found[column], plain[column]), column
    assert flagged
    assert all(model.get_submodule(name).grad_checkpointing for name in flagged)
    light = agflow.prune(model, agflow.plan(found, macs=0.8), [images])
    assert light.eval()(images).shape == (4, 4)


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Linear(16, 4)

    def forward(self, x):
        x = checkpoint(self.body, self.stem(x).relu(), use_reentrant=False)
        return self.fc(x.relu().mean((2, 3)))


def test_what_checkpoints_by_itself_is_refused_with_the_cure():
    model = Checkpointed().eval()
    with pytest.raises(UnsupportedModelError, match="checkpoints activations.*switch that off"):
        agflow.shrink(model, torch.randn(8, 3, 16, 16), macs=0.7, report=None)


class Coarse(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Checkpointed()

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            x = self.body.body(self.body.stem(x).relu())
            return self.body.fc(x.relu().mean((2, 3))).float()


def test_what_turns_autocast_on_by_itself_is_refused_with_the_cure():
    with pytest.raises(UnsupportedModelError, match="turns autocast on.*inside torch.autocast"):
        agflow.shrink(Coarse().eval(), torch.randn(8, 3, 16, 16), macs=0.7, report=None)
