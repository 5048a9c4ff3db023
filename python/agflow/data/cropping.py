"""From an image of any size to the size that a model takes, in Pillow alone.

The sizes and the rounding are those of timm's transform for evaluation, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

LONGEST = 64
"""How many times longer an image may be than the crop, in its shape, before it is resized."""


def resize_and_crop(
    image: Image.Image,
    size: tuple[int, int],
    interpolation: str,
    crop_pct: float,
    crop_mode: str,
    border: Sequence[int],
) -> Image.Image:
    """Resize an image and take its middle, by the rules of :class:`agflow.data.Preprocessing`.

    Parameters
    ----------
    image : of mode L or RGB
    size : height and width of the result, pixels
    border : the colour, one number a channel, that fills the rest with ``crop_mode="border"``.
        An image that is smaller than the crop in another mode is put on black

    Examples
    --------
    >>> from PIL import Image
    >>> from agflow.data.cropping import resize_and_crop
    >>> wide = Image.new("L", (80, 40))
    >>> resize_and_crop(wide, (20, 30), "bicubic", 1.0, "center", [0]).size
    (30, 20)
    """
    # timm rounds size / crop_pct down: 380 / 0.95 is 399.99... and is to be 400.
    whole = tuple(math.floor(side / (crop_pct * (1 - 1e-9))) for side in size)
    height, width = _size_before_crop(image, whole, crop_mode)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling[interpolation.upper()])
    fill = border if crop_mode == "border" else [0] * len(border)
    return _crop(_padded(image, size, fill), size)


def middle(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image, or the middle of one that is ``LONGEST`` times longer than a crop of ``size``.

    A resize would make a picture of 1 x 65,000 pixels one of millions of them.

    Raises
    ------
    ValueError
        The image has no pixels.
    """
    longest = LONGEST * max(size) / min(size)
    short, long = sorted(image.size)
    if short == 0:
        raise ValueError(f"it has {image.width} x {image.height} pixels")
    if long <= longest * short:
        return image
    kept = math.ceil(longest * short)
    start = (long - kept) // 2
    end = long - start  # as much is cut off at either end, so that the middle stays the middle
    wide = image.width == long
    return image.crop((start, 0, end, short) if wide else (0, start, short, end))


def _size_before_crop(
    image: Image.Image, whole: tuple[int, ...], crop_mode: str
) -> tuple[int, int]:
    """Height and width that the image is resized to."""
    if crop_mode == "squash":
        return whole[0], whole[1]
    if crop_mode == "center" and whole[0] == whole[1]:
        short, long = sorted(image.size)
        grown = int(whole[0] * long / short)
        return (grown, whole[0]) if image.width <= image.height else (whole[0], grown)
    ratios = image.height / whole[0], image.width / whole[1]
    ratio = max(ratios) if crop_mode == "border" else min(ratios)
    return max(1, round(image.height / ratio)), max(1, round(image.width / ratio))


def _padded(image: Image.Image, size: tuple[int, int], fill: Sequence[int]) -> Image.Image:
    """The image in the middle of one that is as large as the crop at least."""
    height, width = (max(pair) for pair in zip(size, (image.height, image.width), strict=True))
    if image.size == (width, height):
        return image
    colour = fill[0] if len(fill) == 1 else tuple(fill)
    padded = Image.new(image.mode, (width, height), colour)
    padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return padded


def _crop(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    if image.size == (width, height):
        return image
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))
