"""Real cuts: a smaller copy of the model after a plan, repaired and checked, the original untouched."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from agflow._utils.loaders import EMPTY
from agflow.errors import (
    DtypeError,
    EmptyError,
    InternalError,
    InvalidValueError,
    ShapeError,
    UnknownLayerError,
)
from agflow.models import Adapter, PrunableLayer, adapter_for, logits_of
from agflow.models.adapter import channels_of
from agflow.models.resolution import at_image_size
from agflow.pruning import masks
from agflow.pruning.least_squares import check_method, fold, moments
from agflow.pruning.sequential import Apply, readers_of, reconstruct_sequentially

if TYPE_CHECKING:
    from agflow.pruning.planning import Plan

CHECKED_IMAGES = 4
SAMPLED_IMAGES = 16  # weigh the tokens of a fold in sequence
TOLERANCE = 1e-5


def prune(
    model: nn.Module,
    plan: Plan,
    loader: Iterable | None = None,
    *,
    compensate: str = "ridge",
) -> nn.Module:
    """A smaller copy of ``model`` that keeps what ``plan`` keeps.

    Before it is handed over, the copy is compared with the full-size model in which the removed units are masked and
    the same repair is made (:func:`agflow.pruning.masks.masked`): on real images (random ones without a loader) their logits must agree.

    Parameters
    ----------
    plan : keeps at least one unit of every layer it names that is not a branch, and as many in each of a layer's parts.
        What it says of the layers of a branch that goes does not matter. A plan from statistics at a smaller image size
        (``calibrate(image_size=…)``) cuts ``agflow.models.at_image_size(model, …)``, so that the copy is of that size
    loader : batches of (images float32 [B, C, H, W], anything), gone through once; a few hundred images suffice and
        need no labels. Only ``compensate="none"`` does without.
    compensate : what the layer that read the removed channels gets instead. ``"ridge"``, the best: a least-squares fit,
        block after block, that also takes back the error of the blocks before (:func:`agflow.pruning.sequential.reconstruct_sequentially`),
        for which every layer behind the first cut that adds to the residual stream is fitted, also where nothing goes;
        the only one that makes up for branches, stream channels and pairs of query and key, in every reader behind them;
        ``"ridge_at_once"`` a least-squares prediction of the removed channels in the uncut model, for models that are no
        row of blocks or more images than memory holds; ``"mean"`` the mean of the removed channels; ``"none"`` nothing
        (:func:`agflow.pruning.least_squares.fold`)

    Raises
    ------
    UnsupportedModelError, DtypeError
        No adapter handles the model, or it has no image size of its own and the plan has one; or it is not float32.
    UnknownLayerError, ShapeError
        The plan was made for another model: a layer is not there or has another number of units.
    InvalidValueError
        Unknown compensation, one that needs images and no loader, or ``"ridge"`` for a model that is no row of blocks; the
        plan keeps nothing of a layer, or other counts in parts that must stay alike.
    EmptyError
        The loader gave no batch.
    NonFiniteError
        A layer's activations hold NaN or infinity.
    """
    check_method(compensate)
    if compensate != "none" and loader is None:
        raise InvalidValueError(
            f"compensate={compensate!r} needs images: pass a loader, or compensate='none'"
        )
    adapter = adapter_for(model)
    if plan.image_size is not None:
        model = at_image_size(model, plan.image_size)
    dtype = next(model.parameters()).dtype
    if dtype is not torch.float32:
        raise DtypeError(
            f"the model's parameters are {dtype}, expected torch.float32: call model.float() first and convert the cut model back"
        )
    cuts = _cuts(adapter, model, plan)
    images, batches = (_example(adapter, model), None) if loader is None else _peek(loader)
    light, masked = (copy.deepcopy(model).eval() for _ in range(2))
    cuts = _cut_structure(adapter, light, cuts)
    surgeon = _Pruner(
        adapter,
        light,
        masked,
        cuts,
        _downstream(adapter.layers(model), light, cuts) if compensate == "ridge" else [],
    )
    if compensate == "ridge":
        reconstruct_sequentially(
            adapter,
            model,
            light,
            surgeon.keep,
            images[:SAMPLED_IMAGES],
            batches,
            surgeon.cut,
            kept_stream_D=surgeon.stream_D,
        )
    else:
        _repair_at_once(light, surgeon.keep, batches, compensate, surgeon.cut)
    with masks.masked(adapter, masked, cuts):
        _check_agreement(light, masked, images[:CHECKED_IMAGES])
    _take_modes(light, model)
    return light


Cuts = list[tuple[PrunableLayer, torch.Tensor]]
"""Layers that lose units, each with those it keeps, ascending int64."""


def _cuts(adapter: Adapter, model: nn.Module, plan: Plan) -> Cuts:
    present = {layer.name: layer for layer in adapter.layers(model)}
    cuts = []
    for planned in plan.layers:
        layer = present.get(planned.name)
        if layer is None:
            raise UnknownLayerError(
                f"layer {planned.name!r} of the plan is not in the model; it has {', '.join(present)}"
            )
        if planned.units != layer.units:
            raise ShapeError(
                f"layer {layer.name} has {layer.units} units, the plan was made for {planned.units}: plan from statistics of this model"
            )
        keep_U = torch.from_numpy(plan.kept(layer.name))
        if len(keep_U) == 0 and layer.group != "block":
            raise InvalidValueError(
                f"the plan keeps no unit of layer {layer.name}, expected at least one"
            )
        counts = torch.bincount(keep_U // (layer.units // layer.parts), minlength=layer.parts)
        if counts.min() != counts.max():
            raise InvalidValueError(
                f"the plan keeps {counts.min()} to {counts.max()} units in the {layer.parts} parts of layer {layer.name}, "
                "expected as many in each: the heads of an attention must stay alike"
            )
        if len(keep_U) < layer.units:
            cuts.append((layer, keep_U))
    return cuts


def _cut_structure(adapter: Adapter, light: nn.Module, cuts: Cuts) -> Cuts:
    """Make the cuts that nothing repairs; returns all that apply, for with a branch its layers are gone."""
    for layer, keep_U in cuts:
        if layer.group == "block":
            adapter.cut(light, layer, keep_U)
    left = {layer.name for layer in adapter.layers(light)}
    cuts = [
        (layer, keep_U) for layer, keep_U in cuts if layer.group == "block" or layer.name in left
    ]
    for layer, keep_U in cuts:
        if layer.group != "block" and not layer.reader:
            adapter.cut(light, layer, keep_U)
    return cuts


def _downstream(layers: list[PrunableLayer], light: nn.Module, cuts: Cuts) -> list[str]:
    """The readers that are left behind the first cut, also those that lose nothing: the stream they add to is not what it was."""
    names = {layer.name for layer, _ in cuts}
    first = next((i for i, layer in enumerate(layers) if layer.name in names), len(layers))
    present = set(dict(light.named_modules()))
    return [reader for reader in readers_of(layers[first:]) if reader in present]


class _Pruner:
    """Cuts what a reader reads in the light model and gives the reader its repaired weights, in the masked model, too.

    Attributes
    ----------
    keep : by reader that loses inputs or is among ``upset``, the input channels it keeps
    stream_D : channels of the stream that the light model has; None for all
    """

    def __init__(
        self, adapter: Adapter, light: nn.Module, masked: nn.Module, cuts: Cuts, upset: list[str]
    ):
        self._adapter, self._light, self._masked = adapter, light, masked
        self.stream_D = next((keep_U for layer, keep_U in cuts if layer.group == "embed"), None)
        self._cuts: dict[str, Cuts] = {reader: [] for reader in upset}
        for layer, keep_U in sorted(
            cuts, key=lambda cut: cut[0].group == "heads"
        ):  # channels of heads before heads, while all are there
            if layer.reader:
                self._cuts.setdefault(layer.reader, []).append((layer, keep_U))
        self.keep = {
            reader: _kept_by_all(light.get_submodule(reader).in_features, of_reader)
            for reader, of_reader in self._cuts.items()
        }

    @torch.no_grad()
    def cut(self, reader: str, weight_OK: torch.Tensor, bias_O: torch.Tensor | None) -> None:
        for layer, keep_U in self._cuts[reader]:
            self._adapter.cut(self._light, layer, keep_U)
        cut, full = self._light.get_submodule(reader), self._masked.get_submodule(reader)
        rows_O = torch.arange(full.out_features) if self.stream_D is None else self.stream_D
        cut.weight.copy_(weight_OK)
        full.weight[rows_O[:, None], self.keep[reader]] = weight_OK
        if bias_O is not None:
            cut.bias.copy_(bias_O)
            full.bias[rows_O] = bias_O


def _kept_by_all(channels: int, cuts: Cuts) -> torch.Tensor:
    """Those of the channels of one Y that every one of the cuts keeps."""
    votes_C = torch.zeros(channels, dtype=torch.int64)
    for layer, keep_U in cuts:
        votes_C[channels_of(keep_U, layer.unit_width)] += 1
    return (votes_C == len(cuts)).nonzero().flatten()


def _repair_at_once(
    light: nn.Module,
    keep: Mapping[str, torch.Tensor],
    batches: Iterable | None,
    compensate: str,
    cut: Apply,
) -> None:
    """Every reader is repaired by what the model shows in one pass while all of them have their inputs."""
    measured = {}
    if compensate != "none":
        measured = moments(
            light,
            list(keep),
            batches,
        )
    for name, keep_C in keep.items():
        reader = light.get_submodule(name)
        cut(name, *fold(reader.weight, reader.bias, keep_C, measured.get(name), compensate))


def _take_modes(light: nn.Module, model: nn.Module) -> None:
    """Every submodule is in training mode if the one of that name in ``model`` is, or one that is new if its parent is."""
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in light.named_modules():
        module.training = modes.setdefault(name, modes.get(name.rpartition(".")[0]))


def _peek(loader: Iterable) -> tuple[torch.Tensor, Iterator]:
    """The images of the first batch, and an iterator that still begins with it."""
    batches = iter(loader)
    first = next(batches, None)
    if first is None:
        raise EmptyError(EMPTY)
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
        raise InternalError(
            f"the cut model's logits differ from the masked one's by {difference:.1e} where the largest is {largest:.1e}, expected at most {TOLERANCE:.0e} of it: "
            "the cut was wrong and is not handed over; please report the model"
        )
