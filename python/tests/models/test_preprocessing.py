"""What a model's images need: what its library, its folder or the user says."""

import json

import pytest
import safetensors.torch
import timm
import torchvision
import transformers
from small_vits import of_timm, of_torchvision, of_transformers

from agflow.data import Preprocessing
from agflow.errors import CorruptFileError, FileError, InvalidValueError
from agflow.models import load_model, preprocessing_of, save_expert

SAVED = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 384, "width": 384},
    "resample": 3,
    "image_mean": [0.1, 0.2, 0.3],
    "image_std": [0.4, 0.5, 0.6],
}


def test_transformers_has_the_defaults_of_its_classes():
    vit = preprocessing_of(of_transformers())
    assert vit == Preprocessing((32, 32), (0.5,) * 3, (0.5,) * 3, "bilinear", 1.0, "squash")
    deit = preprocessing_of(of_transformers("DeiT", "WithTeacher", image_size=64))
    assert deit == Preprocessing((64, 64), (0.5,) * 3, (0.5,) * 3, "bicubic", 0.875, "squash")


def test_the_image_processor_beside_a_saved_model_is_read(tmp_path):
    of_transformers().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(SAVED))
    model = transformers.ViTForImageClassification.from_pretrained(tmp_path)
    assert preprocessing_of(model) == Preprocessing(
        (32, 32), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bicubic", 1.0, "squash"
    )


def test_the_image_processor_beside_the_weights_is_read(tmp_path, monkeypatch):
    weights = tmp_path / "model.safetensors"
    safetensors.torch.save_file(of_transformers().state_dict(), weights)
    monkeypatch.setattr("small_vits.zoo", of_transformers, raising=False)
    assert load_model("small_vits:zoo", weights)[1].mean == (0.5, 0.5, 0.5)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(SAVED))
    assert load_model("small_vits:zoo", weights)[1].mean == (0.1, 0.2, 0.3)
    given = load_model("small_vits:zoo", weights, mean=["0", ".5", "1"], std=[1, 1, 1])[1]
    assert (given.mean, given.std, given.interpolation) == ((0.0, 0.5, 1.0), (1.0,) * 3, "bicubic")


@pytest.mark.parametrize(
    "text, kind, words",
    [
        ("{", CorruptFileError, r"preprocessor_config\.json is not JSON"),
        ("[1]", CorruptFileError, "holds a list, expected a JSON object"),
        ("[" * 100000, CorruptFileError, "is not JSON"),
        ('{"do_pad": true}', InvalidValueError, "has do_pad"),
        (" " * (1 << 20) + "{}", CorruptFileError, "larger than"),
    ],
)
def test_damaged_image_processors_are_named(tmp_path, text, kind, words):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(kind, match=words):
        preprocessing_of(of_transformers(), folder=tmp_path)


def test_a_pipe_is_no_image_processor(tmp_path):
    import os

    os.mkfifo(tmp_path / "preprocessor_config.json")
    with pytest.raises(FileError, match="is no regular file"):
        preprocessing_of(of_transformers(), folder=tmp_path)


def test_torchvision_resizes_as_its_first_weights_want_it():
    transforms = torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1.transforms()
    found = preprocessing_of(of_torchvision())
    assert found.interpolation == transforms.interpolation.value == "bilinear"
    assert found.crop_pct == 224 / 256 and found.mean == tuple(transforms.mean)


def test_timms_way_to_crop_is_kept():
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", **small)
    assert preprocessing_of(model).crop_mode == "center"
    model.pretrained_cfg["crop_mode"] = "squash"
    assert preprocessing_of(model).crop_mode == "squash"


def test_one_channel_needs_a_mean_and_a_std():
    grey = of_timm(in_chans=1)
    with pytest.raises(InvalidValueError, match=r"3 channels, the model takes 1: .*--mean"):
        preprocessing_of(grey)
    found = preprocessing_of(grey, mean=[0.3], std=["0.2"])
    assert (found.mean, found.std, found.channels) == ((0.3,), (0.2,), 1)
    for given, words in (
        ({"mean": [0.3]}, r"std is \[\], expected one number for each of the model's 1 channels"),
        ({"mean": [0.3] * 3, "std": [0.2]}, "mean is .*expected one number for each"),
        ({"mean": ["x"], "std": [0.2]}, r"mean is \['x'\], expected numbers"),
        ({"mean": [0.3], "std": [0.0]}, "std of a preprocessing is"),
        ({"mean": [float("nan")], "std": [1]}, "mean of a preprocessing is"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            preprocessing_of(grey, **given)


def test_an_expert_folder_brings_its_own(tmp_path):
    save_expert(of_timm(), tmp_path / "expert", preprocessing=preprocessing_of(of_timm()))
    with pytest.raises(InvalidValueError, match="brings its own mean: leave mean"):
        load_model(str(tmp_path / "expert"), mean=[0.5] * 3, std=[0.5] * 3)
