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
_EXPECTED = {
    "input_size": "height and width in pixels",
    "mean": "finite numbers",
    "std": "numbers above 0",
    "interpolation": "bicubic, bilinear, nearest, lanczos, box or hamming",
    "crop_pct": "a number above 0",
    "crop_mode": "center, squash or border",
}
_INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")
_LONGEST = 64  # times the crop's longer side over its shorter one


@dataclass(frozen=True)
class Preprocessing:
    """Resize the short side, crop the middle, scale to [0, 1], and normalise by mean and std.

    Attributes
    ----------
    input_size : height and width after the crop, pixels
    mean, std : one number per channel
    interpolation : of the resize: ``"bicubic"``, ``"bilinear"``, ``"nearest"``, ``"lanczos"``,
        ``"box"`` or ``"hamming"``
    crop_pct : the short side is resized to input_size / crop_pct
    crop_mode : ``"center"``; or ``"squash"``: both sides are resized to input_size / crop_pct,
        whatever the shape of the image; or ``"border"``: the long side is, and the rest is filled

    Raises
    ------
    InvalidValueError
        ``mean`` and ``std`` are not one number each per channel, for 1 or 3 channels, or a value is
        of another kind or out of its range.

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
    crop_mode: str = "center"

    def __post_init__(self):
        if self.channels not in _MODES or len(self.std) != self.channels:
            raise InvalidValueError(
                f"preprocessing has mean {self.mean} and std {self.std}, expected one number each "
                "per channel, for 1 or 3 channels"
            )
        height, *width = self.input_size
        for name, right in {
            "input_size": len(width) == 1 and all(_is_whole(n) for n in (height, *width)),
            "mean": all(map(_is_finite, self.mean)),
            "std": all(_is_finite(n) and n > 0 for n in self.std),
            "interpolation": self.interpolation in _INTERPOLATIONS,
            "crop_pct": _is_finite(self.crop_pct) and self.crop_pct > 0,
            "crop_mode": self.crop_mode in ("center", "squash", "border"),
        }.items():
            if not right:
                raise InvalidValueError(
                    f"{name} of a preprocessing is {getattr(self, name)!r:.60}, expected "
                    f"{_EXPECTED[name]}"
                )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Preprocessing:
        """Rebuild it from :meth:`to_dict`'s values.

        Raises
        ------
        TypeError, KeyError, InvalidValueError
            A key is missing or unknown, or a value is none that a preprocessing has.
        """
        lists = {name: tuple(values[name]) for name in ("input_size", "mean", "std")}
        others = {name: values[name] for name in ("interpolation", "crop_pct")}
        return cls(**{**values, **others, **lists})

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
            # timm rounds size / crop_pct down: 380 / 0.95 is 399.99... and is to be 400.
            crop_pct=self.crop_pct * (1 - 1e-9),
            crop_mode=self.crop_mode,
            mean=self.mean,
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


def _is_whole(number: Any) -> bool:
    return type(number) is int and 0 < number < 1 << 16


def _is_finite(number: Any) -> bool:
    return type(number) in (int, float) and math.isfinite(number)


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
