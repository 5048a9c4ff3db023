"""Input resolution: a model at another image size, which resizes its images itself.

An image of half the height and width has a quarter of the patches, so that every block costs a
quarter or less.
"""

from __future__ import annotations

from torch import nn

from agflow.models.account import examined
from agflow.models.callables import unwrapped
from agflow.models.copying import copy_of
from agflow.models.registry import adapter_for
from agflow.models.resizing import Resize, resize_of


def at_image_size(model: nn.Module, size: int | tuple[int, int]) -> nn.Module:
    """Copy ``model`` for another input resolution; the copy resizes images of any size itself.

    Its position embeddings are interpolated to the patches of that size, bicubic and antialiased,
    class and other prefix tokens left out (timm's ``resample_abs_pos_embed``); all other weights
    are those of ``model``. Images, float32 [B, C, H, W], are resized before anything else, bilinear
    and antialiased (:class:`agflow.models.resizing.Resize`). MACs, layers and budgets of the copy
    are those at its size; it is measured, cut, trained, saved and served like any other model.

    Parameters
    ----------
    size : height and width in pixels, or one number for both; multiples of the model's patches

    Raises
    ------
    InvalidValueError
        The size is no multiple of the patches, or the family takes square images only.
    UnsupportedModelError
        No adapter handles the model, or it has no image size of its own (timm's
        ``dynamic_img_size``).

    Examples
    --------
    >>> import torch
    >>> import agflow
    >>> from agflow.models import at_image_size, count_macs
    >>> model, _, _ = agflow.load_model("example")
    >>> small = at_image_size(model, 16)
    >>> small(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    >>> round(count_macs(small) / count_macs(model), 2)
    0.33
    """
    height, width = (size, size) if isinstance(size, int) else size
    model = unwrapped(model)
    adapter, small = adapter_for(model), copy_of(model)
    adapter.set_image_size(small, height, width)
    examined(model)
    resize_to_own(small)
    return small


def image_size(model: nn.Module) -> tuple[int, int]:
    """Height and width in pixels of the images that the model works at.

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import agflow
    >>> from agflow.models import image_size
    >>> image_size(agflow.load_model("example")[0])
    (28, 28)
    """
    model = unwrapped(model)
    return adapter_for(model).input_size(model)[1:]


def resize_to_own(model: nn.Module) -> None:
    """Make ``model``, in place, resize images of any size to its own."""
    hook = resize_of(model)
    if hook is None:
        model.register_forward_pre_hook(Resize(*image_size(model)), prepend=True)
    else:
        hook.size = image_size(model)
