"""Passes of both experts over the same images.

Shape suffixes: N images, B images of a batch, C channels or features, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.hooks import temporary_hooks
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import (
    ExtraPriors,
    FixedParameters,
    ImageSketches,
    Predictions,
    join_predictions,
)
from agflow.data.leakage import ImageSketch
from agflow.errors import UnsupportedModelError
from agflow.evaluation.accuracy import logits
from agflow.models import count_macs

if TYPE_CHECKING:
    from agflow.cascade.router import Router


def predict(
    light: nn.Module,
    heavy: nn.Module,
    loader: Iterable,
    *,
    router: Router | None = None,
    features: bool = default("predict", "features"),
    second_view: bool | nn.Module = default("predict", "second_view"),
    shared_blocks: int = 0,
    tuning: str = "",
) -> Predictions:
    """Run both experts over the same images and record their predictions and priors.

    Parameters
    ----------
    light, heavy : map float32 [B, C, H, W] to logits [B, K]
    loader : batches of (images float32 [B, C, H, W], labels int64 [B]), in the same order at every
        pass
    router : for test images: its temperature and light weight are used. By default both are fitted
        to a quarter of the images (:func:`agflow.cascade.join_predictions`)
    features : also record the prior l1_norm, of the input of the light expert's last linear layer
    second_view : also record the prior agreement, with the light expert's answer to the mirrored
        image (True) or with another light expert's answer to the image (that expert). A cascade
        that routes by it pays for the second pass too
    shared_blocks : first blocks that the cascade will share (:class:`agflow.Cascade`); an escalated
        image does not pay for them again
    tuning : sketch (:func:`agflow.data.sketch_images`) of the images that tuned an expert. A router
        is not calibrated on predictions that share images with it, as far as sketches show

    Raises
    ------
    EmptyError
        The loader gave no batch.
    NonFiniteError
        An expert gave a logit that is NaN or infinite.
    UnsupportedModelError
        Features were asked for and the light expert has no linear layer.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> heavy, preprocessing, _ = agflow.load_model("example")
    >>> light = agflow.models.at_image_size(heavy, 20)
    >>> images = agflow.load_dataset("example:test", preprocessing=preprocessing, limit=64)
    >>> len(agflow.predict(light, heavy, DataLoader(images, 32)))
    64
    """
    with _last_features(light, features) as seen:
        images = ImageSketch()
        light_NK, labels = logits(light, images.watching(loader), description="light expert")
    fixed = FixedParameters()
    if router is not None:
        fixed = FixedParameters(router.temperature, router.light_weight)
    costs, second_view_NK = CascadeCosts.of(light, heavy, shared_blocks), None
    if second_view is not False:
        viewer, views = (light, _Mirrored(loader)) if second_view is True else (second_view, loader)
        second_view_NK, _ = logits(viewer, views, description="second view")
        costs = replace(costs, second_view=count_macs(viewer))
    heavy_NK, _ = logits(heavy, loader, description="heavy expert")
    return join_predictions(
        light_NK,
        heavy_NK,
        labels,
        costs,
        fixed=fixed,
        extra=ExtraPriors(torch.cat(seen) if features else None, second_view_NK),
        sketches=ImageSketches(str(images), tuning),
    )


@dataclass(frozen=True)
class _Mirrored:
    """A loader whose images are mirrored, left for right."""

    loader: Iterable

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((x.flip(-1), label) for x, label in self.loader)


@contextmanager
def _last_features(model: nn.Module, wanted: bool) -> Iterator[list[torch.Tensor]]:
    """While open, append float32 [B, C], the input of the last linear layer, at every forward pass
    if ``wanted``."""
    seen: list[torch.Tensor] = []
    if not wanted:
        yield seen
        return
    heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no linear layer, expected one behind its last features: "
            "leave features out"
        )
    hook = heads[-1].register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].detach().float().cpu())
    )
    with temporary_hooks([hook]):
        yield seen
