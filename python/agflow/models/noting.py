"""The size of the images that a model is run on, noted on models that run at any."""

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
from agflow.models.image_sizes import note_size, noted_size
from agflow.models.registry import declared_adapter
from agflow.models.resizing import resize_of


def note_images(model: nn.Module, images: torch.Tensor) -> None:
    """Note the size of images [B, C, H, W] that a model is run on, if it has none of its own."""
    if images.ndim == 4 and _runs_at_any_size(model):
        note_size(model, images.shape[1:])


def awaits_images(model: nn.Module) -> bool:
    """Whether only images will say at which size a model runs: it has not been run on any.

    Examples
    --------
    >>> import timm, torch
    >>> from agflow.models.noting import awaits_images, note_images
    >>> model = timm.create_model("resnet18")
    >>> awaits_images(model)
    True
    >>> note_images(model, torch.zeros(2, 3, 32, 32))
    >>> awaits_images(model)
    False
    """
    return _runs_at_any_size(model) and noted_size(model) is None


def sized_by(model: nn.Module, loader: Iterable) -> Iterable:
    """Note the size of the images that ``loader`` gives first; returns what gives all of them.

    A model that resizes its images keeps its size, and so does one whose loader cannot be read:
    whoever reads it says why. The random numbers of the process stay as they are.

    Examples
    --------
    >>> import timm, torch
    >>> from agflow.models.image_sizes import known_size
    >>> from agflow.models.noting import sized_by
    >>> model = timm.create_model("resnet18")
    >>> loader = sized_by(model, [(torch.zeros(2, 3, 32, 32), torch.zeros(2).long())])
    >>> known_size(model)
    (3, 32, 32)
    """
    if not _runs_at_any_size(model):
        return loader
    first: list[Any] = []
    batches: Iterable = loader
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
    return resize_of(model) is None and declared_adapter(model) is None


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
