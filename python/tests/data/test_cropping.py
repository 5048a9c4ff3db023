"""Images are resized, cropped and normalised bit for bit as timm and torch do it."""

import subprocess
import sys

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from agflow.data.preprocessing import Preprocessing

SIZES = [(16, 16), (17, 40), (40, 17), (1, 1), (5, 50), (61, 60), (21, 15)]
LONG = [(900, 15), (15, 900)]
NAMES = ["bicubic", "bilinear", "nearest", "lanczos", "box", "hamming"]


def noise(width, height, mode):
    rng = np.random.default_rng(width * height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


def of_timm(preprocessing):
    """The transform that timm makes for a model's weights."""
    return timm.data.create_transform(
        (preprocessing.channels, *preprocessing.input_size),
        is_training=False,
        normalize=False,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct * (1 - 1e-9),
        crop_mode=preprocessing.crop_mode,
        mean=preprocessing.mean,
    )


def of_torch(preprocessing, pixels):
    mean, std = (
        torch.tensor(values).view(-1, 1, 1) for values in (preprocessing.mean, preprocessing.std)
    )
    return pixels.float().div_(255).sub_(mean).div_(std)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", NAMES)
def test_pixels_and_their_normalisation_are_those_of_timm_and_torch(interpolation, crop_mode):
    for mean, mode in (((0.45,), "L"), ((0.485, 0.456, 0.406), "RGB")):
        for crop_pct, size in ((1.0, (16, 16)), (0.875, (15, 22)), (0.9, (33, 33)), (1.25, (9, 8))):
            of = Preprocessing(size, mean, (0.229,) * len(mean), interpolation, crop_pct, crop_mode)
            expected = of_timm(of)
            # Of a long image timm leaves no pixel between wide borders: see below.
            sizes = SIZES + (LONG if crop_mode != "border" else [])
            for image in (noise(*each, mode) for each in sizes):
                pixels, prepared = of.pixels(image), of.prepare(image)
                assert torch.equal(pixels, expected(image))
                normalised = of_torch(of, pixels)
                assert torch.equal(of.normalise(pixels), normalised)
                assert torch.equal(of.normalise(pixels[None])[0], normalised)
                assert torch.equal(torch.from_numpy(prepared), normalised)


def test_sizes_that_networks_have_are_cropped_as_timm_does():
    for size, crop_pct in ((224, 0.9), (380, 0.95), (299, 0.875), (288, 1.0)):
        of = Preprocessing((size, size), (0.5,) * 3, (0.5,) * 3, "bicubic", crop_pct)
        image = noise(341, 256, "RGB")
        assert torch.equal(of.pixels(image), of_timm(of)(image))


def test_a_border_is_all_that_is_wide_of_a_thin_image():
    """timm resizes it to no pixel at all and raises."""
    of = Preprocessing((16, 16), (0.0,), (1.0,), crop_mode="border")
    white = Image.new("L", (640, 10), 255)
    with pytest.raises(ValueError, match="must be > 0"):
        of_timm(of)(white)
    assert of.pixels(white).sum() == 16 * 255


def test_an_input_is_written_where_it_is_wanted():
    of = Preprocessing((16, 16), (0.5,) * 3, (0.25,) * 3)
    image, out = noise(40, 30, "RGB"), np.empty((2, 3, 16, 16), np.float32)
    assert of.prepare(image, out[1]).base is out
    assert np.array_equal(out[1], of.prepare(image))


def test_images_are_prepared_without_torch():
    code = """
import sys
sys.modules.update(dict.fromkeys(("torch", "timm", "torchvision", "pyarrow")))
from PIL import Image
from agflow.data import Preprocessing
of = Preprocessing((16, 16), (0.5,) * 3, (0.25,) * 3)
print(of.prepare(Image.new("RGB", (40, 30), "white")).min())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2.0\n", done.stderr
