"""Preprocessing: from an image file to the tensor that a model was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, cast

import torch
from PIL import Image

from agflow.data.decoding import to_eight_bits
from agflow.errors import InvalidValueError

_MODES = {1: "L", 3: "RGB"}
_LONGEST = 64  # times the crop's longer side over its shorter one


@dataclass(frozen=True)
class Preprocessing:
    """Resize the short side, crop the middle, scale to [0, 1], and normalise by mean and std.

    Attributes
    ----------
    input_size : height and width after the crop, pixels
    mean, std : one number per channel
    interpolation : of the resize: ``"bicubic"``, ``"bilinear"`` or ``"nearest"``
    crop_pct : the short side is resized to input_size / crop_pct

    Raises
    ------
    InvalidValueError
        ``mean`` and ``std`` are not one number each per channel, for 1 or 3 channels.

    Examples
    --------
    >>> from PIL import Image
    >>> from agflow.data import Preprocessing
    >>> preprocessing = Preprocessing((28, 28), mean=(0.5,), std=(0.5,))
    >>> pixels = preprocessing.pixels(Image.new("L", (56, 40)))
    >>> pixels.dtype, pixels.shape
    (torch.uint8, torch.Size([1, 28, 28]))
    >>> float(preprocessing.normalise(pixels[None]).mean())
    -1.0
    """

    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0

    def __post_init__(self):
        if self.channels not in _MODES or len(self.std) != self.channels:
            raise InvalidValueError(
                f"preprocessing has mean {self.mean} and std {self.std}, expected one number each "
                "per channel, for 1 or 3 channels"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Rebuild it from :meth:`to_dict`'s values; TypeError or KeyError for other keys."""
        lists = {name: tuple(values[name]) for name in ("input_size", "mean", "std")}
        return cls(**{**values, **lists})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    @property
    def channels(self) -> int:
        return len(self.mean)

    @cached_property
    def _resize_and_crop(self) -> Callable[[Image.Image], torch.Tensor]:
        import timm.data  # seconds to import, and needed only where images are decoded

        transform = timm.data.create_transform(
            (self.channels, *self.input_size),
            is_training=False,
            normalize=False,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
        )
        # It would be a tuple with separate=True, and of arrays with use_prefetcher=True.
        return cast("Callable[[Image.Image], torch.Tensor]", transform)

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Decode, resize and crop one image to uint8 [C, H, W].

        Of an image that is far longer than the crop, the middle is taken before the resize, which
        would make a picture of 1 x 65,000 pixels one of millions of them.

        Raises
        ------
        ValueError
            The image has no pixels, or a mode that does not say what value is white.
        """
        image = to_eight_bits(image, _MODES[self.channels])
        return self._resize_and_crop(_middle(image, _LONGEST * _aspect(self.input_size)))

    def normalise(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 [B, C, H, W] to the model's float32 input."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return pixels_BCHW.float().div_(255).sub_(mean).div_(std)


def _aspect(size: tuple[int, int]) -> float:
    """The longer side over the shorter one."""
    return max(size) / min(size)


def _middle(image: Image.Image, longest: float) -> Image.Image:
    """The image, or its middle whose sides have the ratio ``longest``."""
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
