"""Bad input to the public Python interface: one sentence, a telling exception, nothing changed."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

import agflow
from agflow import errors
from agflow._core.arrow import matrix
from agflow.calibration.hooks import capture
from agflow.models.load import load_model


def one_sentence(caught):
    text = str(caught.value)
    assert text and "\n" not in text and not text.startswith("agflow:"), text
    assert isinstance(caught.value, errors.AgflowError)


@pytest.mark.parametrize(
    ("tensor", "error", "words"),
    [
        (torch.zeros(4, 3, dtype=torch.complex64), errors.DtypeError, "complex64"),
        (torch.zeros(4, 3, dtype=torch.int64), errors.DtypeError, "int64"),
        (torch.zeros(12), errors.ShapeError, "12"),
        (torch.zeros(2, 3, 4), errors.ShapeError, "2, 3, 4"),
        (torch.zeros(3, 4).t(), errors.ShapeError, "contiguous"),
        (torch.zeros(4, 8)[:, ::2], errors.ShapeError, "contiguous"),
        (torch.zeros(4, 3, device="meta"), errors.DeviceError, "meta"),
        (np.zeros((4, 3), np.uint16), errors.DtypeError, "uint16"),
        ("no tensor", errors.DtypeError, "str"),
    ],
)
def test_a_matrix_of_the_wrong_kind_is_refused(tensor, error, words):
    with pytest.raises(error, match=words) as caught:
        matrix(tensor)
    one_sentence(caught)


def test_nan_in_a_gradient_names_layer_and_batch_and_leaves_the_model_as_it_was(example, loader):
    model = copy.deepcopy(example[0])
    with torch.no_grad():
        model.head.weight[0, 0] = float("inf")
    before = {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()}
    with pytest.raises(errors.NonFiniteError, match=r"blocks\.5") as caught:
        agflow.calibrate(model, loader("train", 0, 32), batches=1)
    one_sentence(caught)
    assert {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()} == before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_nan_in_an_image_is_refused(example):
    x = torch.full((2, 1, 28, 28), float("nan"))
    with pytest.raises(errors.NonFiniteError) as caught:
        agflow.calibrate(example[0], [(x, torch.zeros(2, dtype=torch.int64))], batches=1)
    one_sentence(caught)


def test_empty_loader(example):
    for call in (
        lambda: agflow.calibrate(example[0], []),
        lambda: agflow.evaluate(example[0], []),
    ):
        with pytest.raises(errors.EmptyError) as caught:
            call()
        one_sentence(caught)


def test_unknown_layer(statistics):
    with pytest.raises(errors.UnknownLayerError, match=r"blocks\.9\.mlp") as caught:
        agflow.score(statistics).of("blocks.9.mlp")
    one_sentence(caught)


def test_a_plan_of_another_model_is_refused_before_anything_is_pruned(example, statistics):
    import timm

    other = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=28,
        patch_size=4,
        in_chans=1,
        num_classes=10,
        embed_dim=64,
        depth=2,
        num_heads=2,
    )
    with pytest.raises(errors.AgflowError) as caught:
        agflow.prune(other, agflow.plan(statistics, macs=0.5), compensate="none")
    one_sentence(caught)


def test_repair_without_images_names_the_cure(example, statistics):
    with pytest.raises(errors.InvalidValueError, match="loader") as caught:
        agflow.prune(example[0], agflow.plan(statistics, macs=0.5))
    one_sentence(caught)


def test_unsupported_models_are_named():
    for model in (nn.Linear(3, 3), nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()), nn.ReLU()):
        with pytest.raises(errors.UnsupportedModelError, match=type(model).__name__) as caught:
            agflow.calibrate(model, [])
        one_sentence(caught)


def test_corrupt_expert_folder(light, tmp_path):
    agflow.save(light, tmp_path / "expert")
    weights = tmp_path / "expert" / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[len(raw) // 2] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(errors.CorruptFileError, match="model.safetensors") as caught:
        agflow.load(tmp_path / "expert")
    one_sentence(caught)
    config = tmp_path / "expert" / "config.json"
    config.write_text(json.dumps({"format": 1}))
    with pytest.raises(errors.CorruptFileError, match="config.json") as caught:
        agflow.load(tmp_path / "expert")
    one_sentence(caught)
    config.unlink()
    with pytest.raises(errors.AgflowError, match="config.json") as caught:
        agflow.load(tmp_path / "expert")
    one_sentence(caught)


def test_missing_weights_file_and_unknown_names():
    for spec, weights, words in (
        ("timm:deit_tiny_patch16_224", "missing.safetensors", "missing.safetensors"),
        ("timm:vit_nothing", None, "vit_nothing"),
        ("floppy:a", None, "floppy"),
    ):
        with pytest.raises(errors.AgflowError, match=words) as caught:
            load_model(spec, weights)
        one_sentence(caught)


def test_capture_of_a_layer_that_is_not_there(example):
    from dataclasses import replace

    from agflow.models import adapter_for

    layer = replace(adapter_for(example[0]).layers(example[0])[-2], reader="blocks.99.mlp.fc2")
    with pytest.raises(errors.UnknownLayerError, match=r"blocks\.99") as caught:
        with capture(example[0], [layer], lambda *_: None):
            pass
    one_sentence(caught)
