"""Images as an exported file takes them, on which it is compared with its model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from agflow.errors import InvalidValueError
from agflow.exporting.quantizing import Batch, Images, batches_of
from agflow.models import adapter_for
from agflow.models.resizing import resize_of

CHECKED_IMAGES = 3


def first_images(
    model: nn.Module,
    images: Images | None,
    quantize: str | None,
    size: tuple[int, int] | None = None,
) -> torch.Tensor:
    """The first images, or random ones, as the file of a model will take them."""
    if images is None:
        return _random_images(model, size)
    if quantize is not None and not isinstance(images, torch.Tensor):
        images, _ = next(batches_of(images), (None, None))
    return _as_taken(model, _float32(images), size)[:CHECKED_IMAGES]


def passes(model: nn.Module, images: Images, size: tuple[int, int] | None) -> Iterator[Batch]:
    """A pass over batches of images as the file of a model will take them, and their labels."""
    for images_BCHW, labels_B in batches_of(images):
        yield _as_taken(model, images_BCHW.float(), size), labels_B


def _random_images(model: nn.Module, size: tuple[int, int] | None) -> torch.Tensor:
    """Images of ``size``, by default of a model's own, the same at every call."""
    channels, *own = adapter_for(model).input_size(model)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(CHECKED_IMAGES, channels, *(size or own), generator=generator)


def _as_taken(model: nn.Module, images: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor:
    """Images of ``size`` as they are; without one as a model with a resize sees them behind it."""
    resize = resize_of(model)
    return images if resize is None or size is not None else resize.resized(images)


def _float32(images: Any) -> torch.Tensor:
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or not len(images):
        found = list(images.shape) if hasattr(images, "shape") else "no tensor"
        raise InvalidValueError(
            f"images to compare on are a {type(images).__name__} ({found}), expected a tensor of "
            "floats [images, channels, height, width] with one image at least"
        )
    return images.float()
