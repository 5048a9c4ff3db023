"""The light experts that a search may choose from, and how each is made of the heavy expert."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn

from agflow.calibration.statistics import Statistics
from agflow.errors import BudgetError, InvalidValueError, UnsupportedModelError
from agflow.models import adapter_for, split
from agflow.models.last_map import pixels_a_position
from agflow.models.resolution import at_image_size, image_size
from agflow.models.vision_transformer import VisionTransformerAdapter
from agflow.pruning.allocation import Allocation
from agflow.pruning.planning import Plan, plan
from agflow.pruning.pruner import prune
from agflow.search.space import SearchSpace, Size

DEFAULT_SIZE_SHARES = (1, 5 / 7, 1 / 2, 3 / 7)
"""Sides of the images tried by default, as shares of the heavy expert's, in whole patches."""


@dataclass(frozen=True)
class Candidate:
    """A light expert that can be made of a heavy one.

    Attributes
    ----------
    image_size : height and width in pixels
    width : share of the heavy expert's MACs at this image size; 1 is dense
    drops : whole residual branches may be removed too
    shared_blocks : first blocks that stay the heavy expert's

    Examples
    --------
    >>> import agflow
    >>> agflow.search.Candidate(image_size=(112, 112), width=0.5)
    Candidate(image_size=(112, 112), width=0.5, drops=False, shared_blocks=0)
    """

    image_size: Size
    width: float
    drops: bool = False
    shared_blocks: int = 0


def candidates(heavy: nn.Module, space: SearchSpace) -> list[Candidate]:
    """All combinations of a space, without the heavy expert itself.

    Blocks are shared at the heavy expert's own image size only.
    """
    own = image_size(heavy)
    sizes = (
        _default_sizes(heavy)
        if space.image_sizes is None
        else [
            (size, size) if isinstance(size, int) else (size[0], size[1])
            for size in cast(tuple, space.image_sizes)
        ]
    )
    found = []
    macs, shared_blocks = (cast(tuple, values) for values in (space.macs, space.shared_blocks))
    for size, width, drops, shared in itertools.product(sizes, macs, (False, True), shared_blocks):
        dense = width == 1
        if (
            (shared and size != own)
            or (dense and (shared or drops or size == own))
            or (drops and "block" not in space.groups)
        ):
            continue
        found.append(Candidate(size, float(width), drops, shared))
    return list(dict.fromkeys(found))


def prune_candidate(
    heavy: nn.Module,
    candidate: Candidate,
    statistics: Statistics | None,
    groups: Sequence[str],
    batches: list,
    *,
    seed: int,
) -> tuple[nn.Module, Plan | None] | None:
    """Make the expert of a candidate, repaired and not trained.

    Parameters
    ----------
    statistics : of the heavy expert at the candidate's image size; a dense candidate needs none
    groups : groups of units that may be pruned
    batches : (images, labels) to repair the expert on

    Returns
    -------
    the expert and the plan that it was pruned by, None for a dense one; None in place of both where
    no plan is as small as the candidate
    """
    if candidate.width == 1:
        return at_image_size(heavy, candidate.image_size), None
    assert statistics is not None  # of every image size at which a candidate is pruned
    groups = [group for group in groups if group != "block" or candidate.drops]
    try:
        chosen = plan(
            statistics,
            macs=candidate.width,
            allocation=Allocation(
                joint=candidate.drops,
                groups=groups,
                ignored_layers=_shared_layers(heavy, candidate.shared_blocks, groups),
            ),
            seed=seed,
        )
    except BudgetError:
        return None
    return prune(heavy, chosen, batches), chosen


def _default_sizes(heavy: nn.Module) -> list[Size]:
    (height, width), (rows, columns) = image_size(heavy), _steps(heavy)
    sizes = [
        (_nearest_multiple(share * height, rows), _nearest_multiple(share * width, columns))
        for share in DEFAULT_SIZE_SHARES
    ]
    return [size for size in sizes if size == (height, width) or _runs_at(heavy, size)]


def _steps(heavy: nn.Module) -> tuple[int, int]:
    """Height and width of a patch, or of what one position of the last map stands for."""
    adapter = adapter_for(heavy)
    if isinstance(adapter, VisionTransformerAdapter):
        patches = cast(nn.Conv2d, heavy.get_submodule(adapter.anatomy(heavy).patch))
        return cast(tuple[int, int], patches.kernel_size)
    try:
        side = pixels_a_position(heavy, adapter.input_size(heavy))
    except UnsupportedModelError:  # no map: any size that it runs at
        side = 1
    return side, side


def _runs_at(heavy: nn.Module, size: Size) -> bool:
    try:
        at_image_size(heavy, size)
    except (InvalidValueError, UnsupportedModelError):
        return False
    return True


def _nearest_multiple(side: float, step: int) -> int:
    return max(1, round(side / step)) * step


def _shared_layers(heavy: nn.Module, shared_blocks: int, groups: Collection[str]) -> list[str]:
    """Names of the layers of ``groups`` that the first blocks contain, or use like the stream."""
    if shared_blocks == 0:
        return []
    held = set(split(heavy, shared_blocks)[0].parameters())
    owner = lambda layer: heavy.get_submodule(layer.reader or layer.name.rpartition(".")[0])
    return [
        layer.name
        for layer in adapter_for(heavy).layers(heavy)
        if layer.kind in groups and not held.isdisjoint(owner(layer).parameters())
    ]
