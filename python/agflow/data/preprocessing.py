"""Preprocessing: from an image file to the numbers that a model was trained on.

Everything is computed in Pillow and numpy, so that a server of exported models needs no torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agflow.data.cropping import middle, resize_and_crop
from agflow.data.decoding import to_eight_bits
from agflow.errors import InvalidValueError

if TYPE_CHECKING:
    import torch
    from PIL import Image

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

    def pixels(self, image: Image.Image) -> torch.Tensor:
        """Decode, resize and crop one image to uint8 [C, H, W].

        Of an image that is far longer than the crop, the middle is taken before the resize
        (:func:`agflow.data.cropping.middle`).

        Raises
        ------
        ValueError
            The image has no pixels, or a mode that does not say what value is white.
        """
        import torch  # the only use of it, here and below: a server of exported models has none

        return torch.from_numpy(self._pixels(image))

    def normalise(self, pixels_BCHW: torch.Tensor) -> torch.Tensor:
        """Normalise uint8 [B, C, H, W] to the model's float32 input."""
        import torch

        return torch.from_numpy(self._normalised(pixels_BCHW.numpy()))

    def prepare(self, image: Image.Image, out: np.ndarray | None = None) -> np.ndarray:
        """Make the model's input of one image, without torch: :meth:`pixels`, then normalised.

        Parameters
        ----------
        out : float32 [C, H, W] that is written to, by default a new array

        Returns
        -------
        float32 [C, H, W], ``out`` where it is given

        Raises
        ------
        ValueError
            As :meth:`pixels`.
        """
        return self._normalised(self._pixels(image), out)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        image = middle(to_eight_bits(image, _MODES[self.channels]), self.input_size)
        border = [round(255 * mean) for mean in self.mean]
        image = resize_and_crop(
            image, self.input_size, self.interpolation, self.crop_pct, self.crop_mode, border
        )
        pixels_HWC = np.asarray(image).reshape(*self.input_size, self.channels)
        # In this order in memory: a normalisation across channels that alternate is slow.
        return np.array(pixels_HWC.transpose(2, 0, 1), order="C")

    def _normalised(self, pixels_BCHW: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        mean, std = (np.array(x, np.float32).reshape(-1, 1, 1) for x in (self.mean, self.std))
        found = np.empty(pixels_BCHW.shape, np.float32) if out is None else out
        np.divide(pixels_BCHW, np.float32(255), found, dtype=np.float32)
        found -= mean
        found /= std
        return found


def _is_whole(number: Any) -> bool:
    return type(number) is int and 0 < number < 1 << 16


def _is_finite(number: Any) -> bool:
    return type(number) in (int, float) and math.isfinite(number)
