"""Layers whose first axis is not that of the images: windows, or tokens before images."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

import agflow
from agflow.calibration import CalibrationOptions

SWIN = {"img_size": 16, "patch_size": 2, "window_size": 4, "embed_dim": 8, "depths": (1,)}


class TokensFirst(nn.Module):
    """As torch's own encoders take them without batch_first."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 24, activation="gelu")
        self.stem, self.encoder = nn.Conv2d(3, 8, 4, 4), nn.TransformerEncoder(layer, 1)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.encoder(self.stem(x).flatten(2).permute(2, 0, 1)).mean(0))


MODELS = {
    "windows": lambda: timm.create_model(
        "swin_tiny_patch4_window7_224", num_heads=(2,), num_classes=3, **SWIN
    ),
    "tokens first": TokensFirst,
}


def own_loss(model, batch):
    return F.cross_entropy(model(batch.images), batch.labels, reduction="none")


@pytest.mark.parametrize("kind", MODELS)
def test_images_are_counted_as_images(kind, tmp_path):
    torch.manual_seed(0)
    model = MODELS[kind]().eval()
    images, labels = torch.randn(12, 3, 16, 16), torch.arange(12) % 3
    batches = [(images[:6], labels[:6]), (images[6:], labels[6:])]
    dump = CalibrationOptions(dump=tmp_path / "dump")
    found = [
        agflow.calibrate(model, batches, groups=("mlp",), loss="labels"),
        agflow.calibrate(model, batches, groups=("mlp",), loss=own_loss, options=dump),
    ]
    for statistics in found:
        assert set(statistics["samples"]) == {12}
        assert set(statistics["batches"]) == {2}
    for column in ("sum_abs_yg", "sum_y2"):
        assert np.array_equal(found[0][column], found[1][column]), column
