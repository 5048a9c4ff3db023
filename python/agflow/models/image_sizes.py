"""The size of the images of a model that runs at many: noted from what it was run on, or known.

Shape suffixes: B images, C channels, H height, W width.
"""

# The libraries' own objects have types that they do not declare.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from agflow.data.batches import image_batches
from agflow.data.processors import preprocessing_like
from agflow.errors import AgflowError, UnsupportedModelError
from agflow.models.families.module_trees import NOTE
from agflow.models.families.origins import origin_of
from agflow.models.families.processor_file import saved_processor
from agflow.models.families.timm_config import config_of
from agflow.models.registry import declared_adapters
from agflow.models.resizing import resize_of

Size = tuple[int, int, int]
_SIZE = NOTE + "input_size"


def known_size(model: nn.Module) -> Size:
    """Channels, height and width of the images that a model takes.

    In this order: what agflow noted when it ran or changed the model; an attribute ``input_size``
    of the user's; what the model's library says of it.

    Raises
    ------
    UnsupportedModelError
        Nothing says it.

    Examples
    --------
    >>> import timm
    >>> from agflow.models.image_sizes import known_size
    >>> known_size(timm.create_model("resnet18", in_chans=1))
    (1, 224, 224)
    """
    noted = vars(model).get(_SIZE) or _own(model)
    if noted is not None:
        return noted
    size = _of_library(model)
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if size is None or channels is None:
        raise UnsupportedModelError(
            f"the size of the images of {type(model).__name__} is not known: calibrate it first "
            "with a loader of its images, or set model.input_size = (channels, height, width)"
        )
    return channels, *size


def note_size(model: nn.Module, size: Iterable[int]) -> None:
    """Note the size of a model's images, channels, height and width; its copies keep it.

    Examples
    --------
    >>> import timm
    >>> from agflow.models.image_sizes import known_size, note_size
    >>> model = timm.create_model("resnet18")
    >>> note_size(model, (3, 64, 96))
    >>> known_size(model)
    (3, 64, 96)
    """
    vars(model)[_SIZE] = tuple(map(int, size))


def note_images(model: nn.Module, images: torch.Tensor) -> None:
    """Note the size of images [B, C, H, W] that a model is run on, if it has none of its own."""
    if images.ndim == 4 and _runs_at_any_size(model):
        note_size(model, images.shape[1:])


def sized_by(model: nn.Module, loader: Iterable) -> Iterable:
    """Note the size of the images that ``loader`` gives first; returns what gives all of them.

    A model that resizes its images keeps its size, and so does one whose loader cannot be read:
    whoever reads it says why. The random numbers of the process stay as they are.

    Examples
    --------
    >>> import timm, torch
    >>> from agflow.models.image_sizes import known_size, sized_by
    >>> model = timm.create_model("resnet18")
    >>> loader = sized_by(model, [(torch.zeros(2, 3, 32, 32), torch.zeros(2).long())])
    >>> known_size(model)
    (3, 32, 32)
    """
    if not _runs_at_any_size(model):
        return loader
    first: list[Any] = []
    with _same_random_numbers(loader):
        try:
            batches = iter(loader)
            first = list(itertools.islice(batches, 1))
            images = next(image_batches(first))
        except Exception:  # of any kind, in a loader of the user's
            images = None
    if images is not None:
        note_images(model, images)
    return itertools.chain(first, batches) if isinstance(loader, Iterator) else loader


def _runs_at_any_size(model: nn.Module) -> bool:
    """Whether a model is one that no family declares and does not resize its images."""
    return resize_of(model) is None and not any(
        adapter.recognises(model) for adapter in declared_adapters()
    )


@contextmanager
def _same_random_numbers(loader: Iterable) -> Iterator[None]:
    """Leave every source of random numbers that reading a batch may draw from as it was."""
    own = (
        getattr(loader, "generator", None),
        getattr(getattr(loader, "sampler", None), "generator", None),
    )
    generators = [generator for generator in own if isinstance(generator, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    of_torch, of_numpy, of_python = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        torch.set_rng_state(of_torch)
        np.random.set_state(of_numpy)
        random.setstate(of_python)


def _own(model: nn.Module) -> Size | None:
    """The size that the user's own class or its maker says."""
    size = vars(model).get("input_size")
    whole = isinstance(size, list | tuple) and len(size) == 3
    return tuple(map(int, size)) if whole and all(isinstance(n, int) for n in size) else None


def _of_library(model: nn.Module) -> tuple[int, int] | None:
    """Height and width that a library knows for its model."""
    published = config_of(model).get("input_size")
    if published is not None:
        return tuple(published[1:])
    if type(model).__module__.startswith("torchvision.models."):
        origin = origin_of(model)
        if origin["library"] == "torchvision":
            (side,) = torchvision_transforms(origin["name"], origin.get("weights")).crop_size
            return side, side
    size = getattr(getattr(model, "config", None), "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return tuple(size)
    return _of_processor(model)


def _of_processor(model: nn.Module) -> tuple[int, int] | None:
    """The size in the image processor beside a Hugging Face model, if it has one."""
    if not type(model).__module__.startswith("transformers.models."):
        return None
    try:
        values = saved_processor(model)
        return preprocessing_like(values).input_size if values else None
    except AgflowError:
        return None


def torchvision_transforms(name: str, weights: str | None = None) -> Any:
    """The transforms of torchvision's weights for a model, by default of the first ones."""
    from torchvision import models  # seconds to import

    known = models.get_model_weights(name)
    return (known[weights] if weights in known.__members__ else next(iter(known))).transforms()
