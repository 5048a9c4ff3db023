"""Real cuts: a smaller copy of the model after a plan, repaired and checked, the original untouched."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn
from tqdm.auto import tqdm

from agflow.compensation import Moments, check_method, fold, moments
from agflow.errors import DtypeError, EmptyError, InternalError, InvalidValueError, ShapeError, UnknownLayerError
from agflow.models import Adapter, PrunableLayer, adapter_for
from agflow.models.adapter import channels_of
from agflow.modes import modes_kept

if TYPE_CHECKING:
    from agflow.planning import Plan

CHECKED_IMAGES = 4
TOLERANCE = 1e-5


def prune(model: nn.Module, plan: Plan, loader: Iterable | None = None, *, compensate: str = "ridge",
          progress: bool = True) -> nn.Module:
    """A smaller copy of ``model`` that keeps what ``plan`` keeps.

    Before it is handed over, the copy is compared with the full-size model in which the removed units are masked and
    the same repair is made: on real images (random ones without a loader) their logits must agree.

    Parameters
    ----------
    plan : keeps at least one unit of every layer it names
    loader : batches of (images float32 [B, C, H, W], anything), gone through once; a few hundred images suffice and
        need no labels. Only ``compensate="none"`` does without.
    compensate : ``"ridge"`` folds a least-squares prediction of the removed channels into the layer that read them,
        ``"mean"`` their mean, ``"none"`` nothing (see :func:`agflow.compensation.fold`)

    Raises
    ------
    UnsupportedModelError, DtypeError
        No adapter handles the model, or it is not float32.
    UnknownLayerError, ShapeError
        The plan was made for another model: a layer is not there or has another number of units.
    InvalidValueError
        Unknown compensation, or one that needs images and no loader.
    EmptyError
        The loader gave no batch.
    """
    check_method(compensate)
    if compensate != "none" and loader is None:
        raise InvalidValueError(f"compensate={compensate!r} needs images: pass a loader, or compensate='none'")
    adapter = adapter_for(model)
    dtype = next(model.parameters()).dtype
    if dtype is not torch.float32:
        raise DtypeError(f"the model's parameters are {dtype}, expected torch.float32: call model.float() first and convert the cut model back")
    cuts = _cuts(adapter, model, plan)
    images, batches = (_example(adapter, model), None) if loader is None else _peek(loader)
    measured = {}
    if compensate != "none":
        watched = tqdm(batches, desc="repair", disable=None if progress else True, leave=False)
        measured = moments(model, [layer for layer, _ in cuts], watched)

    light, masked = copy.deepcopy(model), copy.deepcopy(model)
    for layer, keep_U in cuts:
        _cut(adapter, light, masked, layer, keep_U, measured.get(layer.name), compensate)
    _check_agreement(light, masked, images)
    return light


def _cuts(adapter: Adapter, model: nn.Module, plan: Plan) -> list[tuple[PrunableLayer, torch.Tensor]]:
    """The layers that lose units, with the units they keep."""
    present = {layer.name: layer for layer in adapter.layers(model)}
    cuts = []
    for planned in plan.layers:
        layer = present.get(planned.name)
        if layer is None:
            raise UnknownLayerError(f"layer {planned.name!r} of the plan is not in the model; it has {', '.join(present)}")
        if planned.units != layer.units:
            raise ShapeError(f"layer {layer.name} has {layer.units} units, the plan was made for {planned.units}: plan from statistics of this model")
        keep_U = torch.from_numpy(plan.kept(layer.name))
        if len(keep_U) == 0:
            raise InvalidValueError(f"the plan keeps no unit of layer {layer.name}, expected at least one")
        if len(keep_U) < layer.units:
            cuts.append((layer, keep_U))
    return cuts


@torch.no_grad()
def _cut(adapter: Adapter, light: nn.Module, masked: nn.Module, layer: PrunableLayer, keep_U: torch.Tensor,
         moment: Moments | None, compensate: str) -> None:
    """Cut and repair ``layer`` in ``light``; give ``masked`` the same repair with zero weights for removed channels."""
    full = masked.get_submodule(layer.reader)
    keep_C = channels_of(keep_U, layer.unit_width)
    weight, bias = fold(full.weight, full.bias, keep_C, moment, compensate)
    adapter.cut(light, layer, keep_U)
    cut = light.get_submodule(layer.reader)
    cut.weight.copy_(weight)
    full.weight.zero_()
    full.weight[:, keep_C] = weight
    if bias is not None:
        cut.bias.copy_(bias)
        full.bias.copy_(bias)


def _peek(loader: Iterable) -> tuple[torch.Tensor, Iterator]:
    """Some of the first images, and an iterator that still begins with them."""
    batches = iter(loader)
    first = next(batches, None)
    if first is None:
        raise EmptyError("the loader gave no batch; expected at least one (images, labels) pair: check the dataset's length and limit")
    return first[0][:CHECKED_IMAGES], itertools.chain([first], batches)


def _example(adapter: Adapter, model: nn.Module) -> torch.Tensor:
    weight = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.randn(CHECKED_IMAGES, *adapter.input_size(model), generator=generator).to(weight)


@torch.no_grad()
def _check_agreement(light: nn.Module, masked: nn.Module, images: torch.Tensor) -> None:
    images = images.to(next(light.parameters()).device)
    with modes_kept(light):
        expected_BK = masked.eval()(images)
        difference = (light.eval()(images) - expected_BK).abs().max()
    largest = expected_BK.abs().max()
    if not difference <= TOLERANCE * largest:
        raise InternalError(f"the cut model's logits differ from the masked one's by {difference:.1e} where the largest is {largest:.1e}, expected at most {TOLERANCE:.0e} of it: "
                            "the cut was wrong and is not handed over; please report the model")
