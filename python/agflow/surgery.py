"""Real cuts: a smaller copy of the model after a plan, repaired and checked, the original untouched."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn
from tqdm.auto import tqdm

from agflow.compensation import check_method, fold, moments
from agflow.errors import DtypeError, EmptyError, InternalError, InvalidValueError, ShapeError, UnknownLayerError
from agflow.models import Adapter, PrunableLayer, adapter_for, logits_of
from agflow.models.adapter import channels_of
from agflow.sequential import Apply, fold_in_sequence

if TYPE_CHECKING:
    from agflow.planning import Plan

CHECKED_IMAGES = 4
SAMPLED_IMAGES = 16  # weigh the tokens of a fold in sequence
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
    compensate : what the layer that read the removed channels gets instead. ``"ridge"``, the best: a least-squares fit,
        block after block, that also takes back the error of the blocks before (:func:`agflow.sequential.fold_in_sequence`);
        ``"ridge_at_once"`` a least-squares prediction of the removed channels in the uncut model, for models that are no
        row of blocks or more images than memory holds; ``"mean"`` the mean of the removed channels; ``"none"`` nothing
        (:func:`agflow.compensation.fold`)

    Raises
    ------
    UnsupportedModelError, DtypeError
        No adapter handles the model, or it is not float32.
    UnknownLayerError, ShapeError
        The plan was made for another model: a layer is not there or has another number of units.
    InvalidValueError
        Unknown compensation, one that needs images and no loader, or ``"ridge"`` for a model that is no row of blocks.
    EmptyError
        The loader gave no batch.
    NonFiniteError
        A layer's activations hold NaN or infinity.
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
    light, masked = (copy.deepcopy(model).eval() for _ in range(2))

    by_reader = {layer.reader: (layer, keep_U) for layer, keep_U in cuts}
    keep = {reader: channels_of(keep_U, layer.unit_width) for reader, (layer, keep_U) in by_reader.items()}

    def cut(reader: str, weight_OK: torch.Tensor, bias_O: torch.Tensor | None) -> None:
        _cut(adapter, light, masked, *by_reader[reader], weight_OK, bias_O)

    if compensate == "ridge":
        fold_in_sequence(adapter, model, light, keep, images[:SAMPLED_IMAGES], batches, cut, progress=progress)
    else:
        _fold_at_once(model, keep, batches, compensate, cut, progress)
    _check_agreement(light, masked, images[:CHECKED_IMAGES])
    _take_modes(light, model)
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


def _fold_at_once(model: nn.Module, keep: Mapping[str, torch.Tensor], batches: Iterable | None, compensate: str,
                  cut: Apply, progress: bool) -> None:
    """Every reader is repaired by what the uncut model shows in one pass."""
    measured = {}
    if compensate != "none":
        measured = moments(model, list(keep), tqdm(batches, desc="repair", disable=None if progress else True, leave=False))
    for name, keep_C in keep.items():
        reader = model.get_submodule(name)
        cut(name, *fold(reader.weight, reader.bias, keep_C, measured.get(name), compensate))


@torch.no_grad()
def _cut(adapter: Adapter, light: nn.Module, masked: nn.Module, layer: PrunableLayer, keep_U: torch.Tensor,
         weight_OK: torch.Tensor, bias_O: torch.Tensor | None) -> None:
    """Cut ``layer`` in ``light`` and repair its reader; ``masked`` gets the same repair, and zero weights for removed channels."""
    adapter.cut(light, layer, keep_U)
    cut, full = light.get_submodule(layer.reader), masked.get_submodule(layer.reader)
    cut.weight.copy_(weight_OK)
    full.weight.zero_()
    full.weight[:, channels_of(keep_U, layer.unit_width)] = weight_OK
    if bias_O is not None:
        cut.bias.copy_(bias_O)
        full.bias.copy_(bias_O)


def _take_modes(light: nn.Module, model: nn.Module) -> None:
    """Every submodule is in training mode if the one of that name in ``model`` is."""
    for name, module in model.named_modules():
        light.get_submodule(name).training = module.training


def _peek(loader: Iterable) -> tuple[torch.Tensor, Iterator]:
    """The images of the first batch, and an iterator that still begins with it."""
    batches = iter(loader)
    first = next(batches, None)
    if first is None:
        raise EmptyError("the loader gave no batch; expected at least one (images, labels) pair: check the dataset's length and limit")
    return first[0], itertools.chain([first], batches)


def _example(adapter: Adapter, model: nn.Module) -> torch.Tensor:
    weight = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.randn(CHECKED_IMAGES, *adapter.input_size(model), generator=generator).to(weight)


@torch.no_grad()
def _check_agreement(light: nn.Module, masked: nn.Module, images: torch.Tensor) -> None:
    images = images.to(next(light.parameters()).device)
    expected_BK = logits_of(masked(images))
    difference = (logits_of(light(images)) - expected_BK).abs().max()
    largest = expected_BK.abs().max()
    if not difference <= TOLERANCE * largest:
        raise InternalError(f"the cut model's logits differ from the masked one's by {difference:.1e} where the largest is {largest:.1e}, expected at most {TOLERANCE:.0e} of it: "
                            "the cut was wrong and is not handed over; please report the model")
