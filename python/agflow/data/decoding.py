"""Image files to 8 bits a channel: which formats and modes are taken, and how they are scaled.

========================== ======================================================================
8 bits, 1 bit, palette     as they are
16-bit grey                scaled such that white is 255 (by the bits of a TIFF; inverted where its
                           white is 0), not clipped as ``Image.convert`` does
transparency               laid over white; an opaque image stays as it is
CMYK, YCbCr                converted to RGB
32-bit integers and floats refused: nothing says which value is white
several frames or pages    the first one
========================== ======================================================================
"""

from __future__ import annotations

from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Formats that are read. Others that Pillow knows are not opened: their decoders run too rarely to
be trusted with files of strangers."""
MAX_PIXELS = 178_956_970  # beyond it Pillow, too, calls an image a decompression bomb
_EIGHT_BITS = {"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV"}
_ALPHA = {"RGBA", "LA", "PA", "RGBa", "La"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF


def open_image(file: BinaryIO) -> Image.Image:
    """Open an image whose pixels are decoded when they are asked for.

    Raises
    ------
    ValueError
        The file is of no format that is read, or has too many pixels. Pillow raises many others.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(
            f"it is no whole image of a format that is read: {', '.join(FORMATS)}"
        ) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"it has {image.width} x {image.height} pixels, expected at most {MAX_PIXELS}"
        )
    return image


def to_eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Convert an image of any mode to ``mode``, by the rules that stand at the top of this module.

    Parameters
    ----------
    mode : "L" or "RGB"

    Raises
    ------
    ValueError
        The image's mode has no scale.
    """
    if _is_sixteen_bits(image):
        image = _sixteen_bits_to_eight(image)
    if image.mode in _ALPHA or "transparency" in image.info:
        return _over_white(image.convert("RGBA"), mode)
    if image.mode not in _EIGHT_BITS:
        raise ValueError(
            f"its mode is {image.mode}, which does not say what value is white: convert it to "
            "images of 8 or 16 bits"
        )
    return image.convert(mode)


def _is_sixteen_bits(image: Image.Image) -> bool:
    # Pillow reads 16-bit PNG (before its version 11) and PPM as 32-bit integers up to 65535.
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _sixteen_bits_to_eight(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1
    values = np.minimum(np.asarray(image).astype(np.int64), white)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = white - values
    return Image.fromarray(((values * 255 + white // 2) // white).astype(np.uint8))


def _over_white(image: Image.Image, mode: str) -> Image.Image:
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert(mode)
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert(mode)
