"""The trained convolutional networks of the development data reach the accuracies known of them."""

import cifar
import pytest
import torch
from torch.utils.data import DataLoader

from agflow.data.batches import image_batches

pytestmark = pytest.mark.slow


@torch.no_grad()
def correct(model, dataset):
    loader = DataLoader(dataset, batch_size=50)
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in loader) / len(dataset)


def test_the_networks_for_cifar(networks):
    test = cifar.cifar_images(networks, "test")
    assert correct(cifar.trained_resnet(networks, 56), test) == pytest.approx(0.916)
    assert correct(cifar.trained_resnet(networks, 20), test) > 0.89


def test_efficientnet_lite0(networks):
    images = cifar.lite0_images(networks, "val", limit=100)
    assert next(image_batches(DataLoader(images, batch_size=2))).shape == (2, 3, 224, 224)
    assert correct(cifar.trained_lite0(networks), images) > 0.7
