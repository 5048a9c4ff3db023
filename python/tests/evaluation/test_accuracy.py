"""Accuracy: counted by hand, training modes kept, empty loaders refused."""

import pytest
import torch

from agflow.errors import EmptyError
from agflow.evaluation.accuracy import Accuracy, accuracy, evaluate, logits


def test_accuracy_among_all_classes_and_among_those_that_occur():
    logits_NK = torch.tensor([[3.0, 0, 1], [0, 2, 9], [1, 5, 0], [4, 0, 1]])
    found = accuracy(logits_NK, torch.tensor([0, 1, 1, 1]))
    assert found == Accuracy(top1=0.5, among_present=0.75, images=4, classes=2)
    assert str(found) == "top-1 50.00 % of 4 images (75.00 % among the 2 classes that occur)"


def test_logits_are_of_evaluation_mode_and_mixed_modes_stay(make_vit, images):
    model = make_vit(drop_rate=0.5).train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    logits_NK, labels_N = logits(model, [images, images])
    assert [module.training for module in model.modules()] == modes
    with torch.no_grad():
        expected_NK = model.eval()(images[0])
    assert torch.equal(logits_NK, torch.cat([expected_NK, expected_NK]))
    assert torch.equal(labels_N, images[1].repeat(2)) and logits_NK.dtype is torch.float32
    right = (expected_NK.argmax(1) == images[1]).double().mean().item()
    assert evaluate(model, [images]).top1 == right


def test_an_empty_loader_is_refused(make_vit):
    model = make_vit().train()
    with pytest.raises(EmptyError, match="no batch"):
        evaluate(model, [])
    assert model.training
