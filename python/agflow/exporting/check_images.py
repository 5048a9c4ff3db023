"""The images on which an exported file is compared with its model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from agflow.errors import InvalidValueError
from agflow.models import adapter_for
from agflow.models.resizing import resize_of

CHECKED_IMAGES = 3


def random_images(model: nn.Module, size: tuple[int, int] | None = None) -> torch.Tensor:
    """Images of ``size``, by default of a model's own, the same at every call."""
    channels, *own = adapter_for(model).input_size(model)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(CHECKED_IMAGES, channels, *(size or own), generator=generator)


def at_own_size(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Images as a model with a resize sees them behind it."""
    resize = resize_of(model)
    return images if resize is None else resize.resized(images)


def float32_images(images: Any) -> torch.Tensor:
    """Images of any float type, checked to be a batch of them."""
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or not len(images):
        found = list(images.shape) if hasattr(images, "shape") else "no tensor"
        raise InvalidValueError(
            f"images to compare on are a {type(images).__name__} ({found}), expected a tensor of "
            "floats [images, channels, height, width] with one image at least"
        )
    return images.float()
