"""Preprocessing that other libraries describe, against what these libraries do themselves."""

import numpy as np
import pytest
import torch
import torchvision
import transformers
from PIL import Image

from agflow.data import Preprocessing, preprocessing_like
from agflow.errors import InvalidValueError

MEANS = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}


def photograph(width=90, height=60):
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + i) + np.cos(y / 7 - i) for i in range(3)]
    return Image.fromarray((np.stack(waves, -1) * 60 + 127).astype(np.uint8))


def tensor_of(preprocessing, image):
    return preprocessing.normalise(preprocessing.pixels(image)[None])[0]


PROCESSORS = {
    "its defaults": {"size": {"height": 32, "width": 32}},
    "other numbers": {"size": {"height": 24, "width": 32}, "resample": 3, **MEANS},
    "a crop": {
        "size": {"height": 40, "width": 40},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
    },
    "the short side and a crop": {
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "resample": 3,
    },
    "raw pixels": {"size": {"height": 32, "width": 32}, "do_rescale": False, **MEANS},
    "another scale": {"size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5, **MEANS},
    "no mean": {"size": {"height": 32, "width": 32}, "do_normalize": False},
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_what_transformers_does(name):
    processor = transformers.ViTImageProcessor(**PROCESSORS[name])
    expected = processor(photograph(), return_tensors="pt")["pixel_values"][0].float()
    for source in (processor, processor.to_dict()):
        found = tensor_of(preprocessing_like(source), photograph())
        assert found.shape == expected.shape
        # Either rounds the resized pixels to whole numbers, each by its own arithmetic.
        assert (found - expected).abs().max() <= 0.02 * expected.abs().max()


def test_what_torchvision_does():
    for weights in (
        torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1,
        torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_LINEAR_V1,
        torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1,
    ):
        transforms = weights.transforms()
        expected = transforms(photograph(500, 400))
        assert torch.equal(
            tensor_of(preprocessing_like(transforms), photograph(500, 400)), expected
        )


def test_old_files_have_one_number_for_both_sides():
    found = preprocessing_like({"size": 32, "resample": 2, **MEANS})
    assert found == Preprocessing(
        (32, 32), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bilinear", 1.0, "squash"
    )
    cropped = preprocessing_like({"size": {"shortest_edge": 224}, "crop_pct": 0.875, **MEANS})
    assert (cropped.input_size, cropped.crop_pct, cropped.crop_mode) == (
        (224, 224),
        0.875,
        "center",
    )


def test_the_share_of_the_image_is_kept_at_another_size():
    values = {"size": 256, "do_center_crop": True, "crop_size": 224, **MEANS}
    found = preprocessing_like(values, (28, 28))
    assert found.input_size == (28, 28) and found.crop_pct == 0.875


@pytest.mark.parametrize("crop, resized", [(380, 400), (224, 256), (224, 248), (28, 32), (37, 41)])
def test_the_size_before_the_crop_is_exact(crop, resized):
    """crop / (crop / resized) may be a little below the whole number, and is rounded down."""
    assert int(crop / (crop / resized * (1 - 1e-9))) == resized
    wide = Image.new("RGB", (resized, resized))
    wide.paste((255, 255, 255), ((resized - crop) // 2,) * 2 + ((resized + crop) // 2,) * 2)
    preprocessing = Preprocessing((crop, crop), (0.5,) * 3, (0.5,) * 3, crop_pct=crop / resized)
    assert preprocessing.pixels(wide)[:, 1:-1, 1:-1].min() == 255


@pytest.mark.parametrize(
    "change, words",
    [
        ({"do_pad": True}, "has do_pad, which a Preprocessing cannot do"),
        ({"do_flip_channel_order": True}, "has do_flip_channel_order"),
        ({"rescale_offset": True}, "has rescale_offset"),
        ({"do_resize": False}, "has do_resize=False"),
        ({"size": {"shortest_edge": 32}}, "crops nothing, which leaves images of any shape"),
        ({"size": {"longest_edge": 32}}, r"size of the image processor is .*longest_edge"),
        ({"size": "large"}, "size of the image processor is 'large'"),
        ({"resample": 9}, "resample of the image processor is 9, expected 0 to 5"),
        ({"image_mean": None}, "no image_mean and image_std"),
        ({"image_std": [0.5, 0.5]}, "expected one number each per channel"),
        (
            {"size": 256, "do_center_crop": True, "crop_size": {"height": 224, "width": 200}},
            "crops 224x200 of 256x256 pixels, expected the same share",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(change, words):
    with pytest.raises(InvalidValueError, match=words):
        preprocessing_like({"size": 32, "resample": 2, **MEANS, **change})


@pytest.mark.parametrize("source", [{}, 3, None, {"image_mean": [0.5] * 3}])
def test_other_things_are_no_image_processors(source):
    with pytest.raises(InvalidValueError, match="is no image processor: expected"):
        preprocessing_like(source)


@pytest.mark.parametrize("crop_mode", ["squash", "border", "center"])
def test_how_an_image_that_is_not_square_is_resized(crop_mode):
    white = Image.new("RGB", (64, 32), "white")
    white.paste((0, 0, 0), (0, 0, 8, 32))
    preprocessing = Preprocessing((32, 32), (0.2,) * 3, (1.0,) * 3, crop_mode=crop_mode)
    pixels = preprocessing.pixels(white)
    assert pixels.shape == (3, 32, 32)
    black_edge, filled = bool((pixels[:, 16, 0] == 0).all()), bool((pixels[:, 0] == 51).all())
    assert (black_edge, filled) == (crop_mode != "center", crop_mode == "border")
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing
