"""Images of all modes and sizes become the same 8 bits, or one sentence says why not."""

import io
import struct
import zlib

import numpy as np
import pytest
import timm.data
import torch
from pictures import GREY, RGB
from PIL import Image

from agflow.data import cropping, decoding, preprocessing
from agflow.data.datasets import load_dataset
from agflow.data.preprocessing import Preprocessing
from agflow.errors import CorruptFileError

RAMP = np.tile(np.linspace(0, 1, 64), (64, 1))
EIGHT = Image.fromarray((RAMP * 255).round().astype(np.uint8))


def save(folder, name, image, **how):
    (folder / "a").mkdir(exist_ok=True)
    image.save(folder / "a" / name, **how)


def load(folder, of=GREY):
    return load_dataset(f"imagefolder:{folder}", preprocessing=of)


def sixteen(order="<", top=65535):
    return (RAMP * top).round().astype(f"{order}u2")


def tiff(values, bits=16, photometric=1, big=False):
    """A grey TIFF of one strip, as other programs write it."""
    order = ">" if big else "<"
    height, width = values.shape
    if bits == 12:
        bits_of = np.unpackbits(
            values.astype(">u2").view(np.uint8).reshape(height, width, 2), axis=2
        )
        raw = np.packbits(bits_of[:, :, 4:].reshape(height, -1), axis=1).tobytes()
    else:
        raw = values.astype(f"{order}u{bits // 8}").tobytes()
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8)]
    tags += [(277, 1), (278, height), (279, len(raw))]
    folder = struct.pack(f"{order}H", len(tags))
    for tag, value in tags:
        folder += struct.pack(f"{order}HHII", tag, 4, 1, value)
    start = (b"MM\0*" if big else b"II*\0") + struct.pack(f"{order}I", 8 + len(raw))
    return start + raw + folder + bytes(4)


@pytest.mark.parametrize("name", ["little", "big", "twelve bits", "white is 0", "png", "pgm"])
def test_sixteen_bits_are_scaled(tmp_path, name):
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "x.tif"
    if name == "png":
        save(tmp_path, "x.png", Image.fromarray(sixteen()))
    elif name == "pgm":
        raw = b"P5 64 64 65535\n" + sixteen(">").tobytes()
        (tmp_path / "a" / "x.pgm").write_bytes(raw)
    elif name == "twelve bits":
        path.write_bytes(tiff(sixteen(top=4095), bits=12))
    elif name == "white is 0":
        path.write_bytes(tiff(65535 - sixteen().astype(np.int64), photometric=0))
    else:
        path.write_bytes(tiff(sixteen(), big=name == "big"))
    found, expected = load(tmp_path)[0][0], GREY.normalise(GREY.pixels(EIGHT))
    torch.testing.assert_close(found, expected, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize(
    "image", [Image.fromarray(RAMP.astype(np.float32)), Image.fromarray(sixteen().astype(np.int32))]
)
def test_values_without_a_white_are_refused(tmp_path, image):
    save(tmp_path, "x.tiff", image)
    with pytest.raises(CorruptFileError, match=r"a/x.tiff cannot .* mode is [FI], .* of 8 or 16"):
        load(tmp_path)[0]


@pytest.mark.parametrize("of", [GREY, RGB])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "CMYK", "LA", "RGBA"])
def test_opaque_modes_are_the_same_image(tmp_path, of, mode):
    image = EIGHT.convert("RGB").convert(mode)
    save(tmp_path, "x.tiff" if mode == "CMYK" else "x.png", image)
    found, expected = load(tmp_path, of)[0][0], of.normalise(of.pixels(EIGHT))
    torch.testing.assert_close(found, expected, rtol=0, atol=12 / 255)  # a palette has few greys


def test_one_bit_is_black_and_white(tmp_path):
    save(tmp_path, "x.png", Image.fromarray(RAMP > 0.5).convert("1"))
    row = load(tmp_path)[0][0][0, 8]
    assert row[0] == 0 and row[-1] == 1


def test_transparency_lies_over_white(tmp_path):
    alpha = np.zeros((20, 20), np.uint8)
    alpha[:, 10:] = 255
    black = Image.new("L", (20, 20))
    black.putalpha(Image.fromarray(alpha))
    save(tmp_path, "1.png", black)
    save(tmp_path, "2.png", black.convert("RGBA"))
    palette = Image.new("P", (20, 20))
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.paste(1, (10, 0, 20, 20))
    save(tmp_path, "3.png", palette, transparency=0)
    save(tmp_path, "4.gif", palette, transparency=0)
    save(tmp_path, "5.webp", black.convert("RGBA"), lossless=True)
    for image, _ in load(tmp_path):
        assert image[0, 8, 0] == 1 and image[0, 8, -1] == 0


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (2, 65000), (65000, 1)])
def test_elongated_images_are_cut_before_the_resize(tmp_path, monkeypatch, size):
    seen = []
    resize = preprocessing.resize_and_crop
    monkeypatch.setattr(
        preprocessing,
        "resize_and_crop",
        lambda image, *how: (seen.append(image.size), resize(image, *how))[1],
    )
    save(tmp_path, "x.png", Image.new("RGB", size, (200, 100, 50)))
    large = Preprocessing((224, 224), (0.0,) * 3, (1.0,) * 3, crop_pct=0.9)
    found = load(tmp_path, large)[0][0]
    assert max(seen[0]) <= cropping.LONGEST * min(size) + 1
    assert (found * 255).round()[:, 9, 9].tolist() == [200, 100, 50]


@pytest.mark.parametrize("size", [(5, 400), (401, 5), (4, 357)])
def test_the_middle_of_an_elongated_image_is_that_of_timm(size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(noise).resize((size[0] * 9, size[1] * 9), Image.Resampling.BICUBIC)
    of = Preprocessing((32, 32), (0.0,) * 3, (1.0,) * 3, "bicubic", 0.9)
    whole = timm.data.create_transform(
        (3, 32, 32), is_training=False, normalize=False, interpolation="bicubic", crop_pct=0.9
    )(image)
    assert max(image.size) > cropping.LONGEST * min(image.size)
    # The cut is at whole pixels of the image, the resized one's at whole pixels of its own.
    assert (of.pixels(image).float() - whole.float()).abs().mean() < 8


def png(width, height):
    """The start of a PNG that says how large it is, and no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = lambda kind, data: (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(png(60_000, 60_000))
    with pytest.raises(CorruptFileError, match="a/x.png cannot be decoded .*3600000000 pixels"):
        load(tmp_path)[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as many programs set it
    with pytest.raises(CorruptFileError, match="a/x.png cannot .* 60000 x 60000 pixels, expected"):
        load(tmp_path)[0]


def test_no_memory_is_one_sentence(tmp_path, monkeypatch):
    def full(self):
        raise MemoryError

    save(tmp_path, "x.png", EIGHT)
    images = load(tmp_path)
    monkeypatch.setattr(Image.Image, "load", full)
    with pytest.raises(CorruptFileError, match="a/x.png cannot be decoded .MemoryError.; remove"):
        images[0]


@pytest.mark.parametrize("form", ["AVIF", "TGA", "ICO", "PCX", "JPEG2000"])
def test_other_formats_are_refused_whatever_they_are_called(tmp_path, form):
    file = io.BytesIO()
    try:
        EIGHT.convert("RGB").save(file, form)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {form}")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(file.getvalue())
    with pytest.raises(CorruptFileError, match="a/x.png cannot .* read: JPEG, PNG, WEBP, TIFF"):
        load(tmp_path)[0]


def test_the_formats_that_are_read(tmp_path):
    endings = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp"}
    endings |= {"GIF": "gif", "PPM": "ppm"}
    assert endings.keys() == {*decoding.FORMATS}
    for form, ending in endings.items():
        save(tmp_path, f"x.{ending}", EIGHT.convert("RGB"), format=form)
    assert len(load(tmp_path)) == len(endings)
    for image, _ in load(tmp_path):
        assert abs(float(image.mean()) - 0.5) < 0.02
