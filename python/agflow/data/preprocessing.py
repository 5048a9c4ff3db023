"""Preprocessing: from an image file to the tensor that a model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, cast

import torch
from PIL import Image

from agflow.errors import InvalidValueError

_MODES = {1: "L", 3: "RGB"}


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
        """Decode, resize and crop one image to uint8 [C, H, W]."""
        return self._resize_and_crop(image.convert(_MODES[self.channels]))

    def normalise(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 [B, C, H, W] to the model's float32 input."""
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return pixels_BCHW.float().div_(255).sub_(mean).div_(std)
