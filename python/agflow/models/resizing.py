"""A hook that resizes images of any size to the size of a model.

Shape suffixes: B images, C channels, H height, W width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from agflow.errors import InvalidValueError, ShapeError


class Resize:
    """Forward pre-hook that resizes images [B, C, H, W], a module's first argument.

    Attributes
    ----------
    size : height and width in pixels
    """

    def __init__(self, height: int, width: int):
        self.size = height, width

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if not inputs:
            raise InvalidValueError(
                f"{type(module).__name__} at image size {self.size[0]}x{self.size[1]} got no "
                "positional argument, expected the images as the first: call model(images)"
            )
        return self.resized(inputs[0]), *inputs[1:]

    def resized(self, images: torch.Tensor) -> torch.Tensor:
        """Resize images, bilinear and antialiased; those of the size are returned as they are.

        Raises
        ------
        ShapeError
            They are not [B, C, H, W].
        """
        if images.ndim != 4:
            raise ShapeError(
                f"images are {list(images.shape)}, expected [images, channels, height, width]"
            )
        if images.shape[2:] == self.size:
            return images
        # On the CPU torch has no such kernel for sixteen bits.
        wide = images.to(torch.promote_types(images.dtype, torch.float32))
        return F.interpolate(wide, self.size, mode="bilinear", antialias=True).to(images.dtype)

    def __repr__(self) -> str:
        return f"Resize({self.size[0]}, {self.size[1]})"


def resize_of(model: nn.Module) -> Resize | None:
    """The hook that resizes the images of ``model``; None for a model that takes one size only."""
    return next(
        (hook for hook in model._forward_pre_hooks.values() if isinstance(hook, Resize)), None
    )
