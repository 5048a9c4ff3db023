"""Costs of any two experts: given, counted, or timed on the images that they see.

Shape suffixes: B images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from agflow.cascade.ledger import MACS, CascadeCosts, read_costs
from agflow.cascade.router import Router
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.evaluation import time_models
from agflow.models import model_macs, prefix_macs, split
from agflow.models.callables import unwrapped
from agflow.models.exported import ExportedExpert
from agflow.models.noting import awaits_images, note_images

MEASURED = "measured"
"""In place of costs: milliseconds, timed on the first batch."""
Costs = CascadeCosts | Sequence[float] | str | None
"""Costs as users give them: None counts MACs."""
UNKNOWN_COSTS = CascadeCosts(math.nan, math.nan)
"""Of experts whose costs are not known yet."""
MS = "ms"
"""The unit of costs that were timed."""
_ROUNDS = 5


def costs_without_images(
    light: nn.Module, heavy: nn.Module, costs: Costs, shared_blocks: int = 0, router: object = None
) -> CascadeCosts | None:
    """Find the costs of two experts that are known before any image is.

    Those are given ones; where None are, those that the router was calibrated with, unless they
    were counted, or MACs where adapters know both experts. None is returned where images have to
    come first (:func:`costs_on_images`).

    Raises
    ------
    InvalidValueError
        What is given is neither None, ``"measured"``, a pair (light, heavy) nor CascadeCosts.
    """
    if isinstance(costs, str):
        if costs != MEASURED:
            raise InvalidValueError(
                f"costs is {costs!r}, expected {MEASURED!r}, a pair (light, heavy) such as "
                "(0.25, 1.0), or CascadeCosts(light, heavy, unit='ms')"
            )
        return None
    if costs is not None:
        return read_costs(costs)
    if isinstance(router, Router) and router.ledger.cost_unit != MACS:
        return router.ledger.costs
    light, heavy = unwrapped(light), unwrapped(heavy)
    if any(map(awaits_images, (light, heavy))):
        return None
    try:
        return CascadeCosts.of(light, heavy, shared_blocks)
    except UnsupportedModelError:
        return None


def are_timed(light: nn.Module, heavy: nn.Module, costs: Costs) -> bool:
    """Whether the costs of two experts are timed: where asked for, and where a file has no MACs.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.cascade.expert_costs import are_timed
    >>> are_timed(nn.ReLU(), nn.ReLU(), None), are_timed(nn.ReLU(), nn.ReLU(), "measured")
    (False, True)
    """
    if costs is not None:
        return costs == MEASURED
    exported = [expert for expert in (light, heavy) if isinstance(expert, ExportedExpert)]
    return any(expert.session.metadata.get("macs") is None for expert in exported)


def costs_on_images(
    light: nn.Module,
    heavy: nn.Module,
    images_BCHW: torch.Tensor,
    shared_blocks: int = 0,
    *,
    measured: bool = False,
) -> CascadeCosts:
    """Count the MACs of two experts on one image, or time them on all of ``images_BCHW``.

    Times are those of one batch of all the images, in turn of either expert, by its threads: the
    median of the rounds, in ms an image. Another batch size or number of threads has others.

    Raises
    ------
    UnsupportedModelError
        The operations of an expert cannot be counted (:func:`agflow.models.model_macs`).
    """
    for expert in map(unwrapped, (light, heavy)):
        if awaits_images(expert):
            note_images(expert, images_BCHW)
    if not measured:
        light_macs, heavy_macs = (model_macs(expert, images_BCHW) for expert in (light, heavy))
        shared_macs = prefix_macs(heavy, shared_blocks) if shared_blocks else 0
        return CascadeCosts(light_macs, heavy_macs, shared_macs)
    parts = {"light": light, "heavy": heavy}
    if shared_blocks:
        parts["shared"] = split(heavy, shared_blocks)[0]
    timings = time_models(parts, images_BCHW, batch=len(images_BCHW), rounds=_ROUNDS)
    ms = {name: 1e3 * timing.median / timing.images for name, timing in timings.items()}
    # What is a part of both passes cannot cost more than either, whatever the clock saw.
    return CascadeCosts(
        ms["light"], ms["heavy"], min(ms.get("shared", 0), ms["light"], ms["heavy"]), unit=MS
    )
