"""Trained convolutional networks and their images, from the development data.

ResNet-20 and ResNet-56 for CIFAR-10, written down as a user would, and EfficientNet-Lite0 for
ImageNet. The fixture ``networks`` is their folder, and skips where the files are absent.

Shape suffixes: N images, C channels, H and W pixels.
"""

import pathlib

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from agflow.data.datasets import load_dataset
from agflow.data.preprocessing import Preprocessing

CIFAR10 = Preprocessing((32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LITE0 = Preprocessing((224, 224), (127 / 255,) * 3, (128 / 255,) * 3, crop_pct=0.875)
TEN = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)
"""The ImageNet classes of Imagenette."""


class BasicBlock(nn.Module):
    """Two convolutions; where it grows, the shortcut is subsampled and padded with zeros."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, (outputs - inputs) // 2

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.padding:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(out + x)


class ResNet(nn.Module):
    """The residual network of He et al. for 32 x 32 images, of 6 n + 2 layers."""

    def __init__(self, depth=20, classes=10, width=16):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        blocks = (depth - 2) // 6
        self.layer1 = stage(width, width, blocks, 1)
        self.layer2 = stage(width, 2 * width, blocks, 2)
        self.layer3 = stage(2 * width, 4 * width, blocks, 2)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.avg_pool2d(x, x.shape[3])
        return self.linear(x.view(x.shape[0], -1))


def stage(inputs, outputs, blocks, stride):
    later = [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *later)


def resnet20():
    return ResNet(20)


def resnet56():
    return ResNet(56)


def trained_resnet(folder, depth):
    """ResNet-20 or ResNet-56 with the weights in the folder, in evaluation mode."""
    model = ResNet(depth)
    model.load_state_dict(load_file(pathlib.Path(folder) / f"resnet{depth}_cifar10.safetensors"))
    return model.eval()


def cifar_images(folder, part="train", limit=None, seed=0):
    """Images float32 [N, 3, 32, 32], normalised, with labels: ``limit`` of them, drawn by seed.

    Parameters
    ----------
    part : ``"train"`` has 4,000 images, ``"test"`` 500
    """
    arrays = np.load(pathlib.Path(folder) / "cifar10_mini.npz")
    pixels, labels = arrays[f"x_{part}"], arrays[f"y_{part}"].astype(np.int64)
    if limit is not None:
        drawn = np.random.default_rng(seed).permutation(len(pixels))[:limit]
        pixels, labels = pixels[drawn], labels[drawn]
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    return TensorDataset(CIFAR10.normalise(images), torch.from_numpy(labels))


def trained_lite0(folder):
    """EfficientNet-Lite0 with the weights in the folder, in evaluation mode."""
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(load_file(pathlib.Path(folder) / "tf_efficientnet_lite0.safetensors"))
    return model.eval()


def lite0_images(folder, part="train3000", limit=256, seed=0):
    """Imagenette for EfficientNet-Lite0, balanced, with labels of ImageNet.

    Parameters
    ----------
    part : ``"train3000"`` to calibrate, ``"val"`` to test
    """
    return load_dataset(
        f"parquet:{pathlib.Path(folder) / f'imagenette160_{part}.parquet'}",
        preprocessing=LITE0,
        classes=1000,
        limit=limit,
        seed=seed,
    )
