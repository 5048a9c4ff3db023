"""Prune a model by a plan: a smaller copy, compensated and checked, the original untouched."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.devices import device_of, first_parameter
from agflow._utils.modes import with_gradients, without_inference_tensors
from agflow._utils.modules import linear_at
from agflow._utils.tensors import relative_difference
from agflow.data.batches import image_batches
from agflow.errors import (
    DtypeError,
    InternalError,
    InvalidValueError,
    ShapeError,
    UnknownLayerError,
)
from agflow.models import Adapter, ChannelGroup
from agflow.models.account import check_values, examined
from agflow.models.callables import unwrapped
from agflow.models.channel_group import channels_of
from agflow.models.copying import copy_of
from agflow.models.families.traced import TracedModel
from agflow.models.forward import check_image_shape
from agflow.models.noting import sized_by
from agflow.models.outputs import whole_output
from agflow.models.resolution import at_image_size
from agflow.pruning.graph_pruner import prune_by_graph
from agflow.pruning.least_squares import check_compensation, compensated, moments
from agflow.pruning.masks import masked
from agflow.pruning.planning import Plan
from agflow.pruning.sequential import Apply, readers_of, reconstruct_sequentially

AGREEMENT_IMAGES = 4  # on which the pruned model is compared with the masked one
SAMPLE_IMAGES = 16  # on which sequential reconstruction weighs the tokens
AGREEMENT_TOLERANCE = 1e-5  # of the largest logit

Cuts = list[tuple[ChannelGroup, torch.Tensor]]
"""Layers that lose units, each with those it keeps, ascending int64."""


@with_gradients
def prune(
    model: nn.Module,
    plan: Plan,
    loader: Iterable | None = None,
    *,
    compensate: str = default("prune", "compensate"),
) -> nn.Module:
    """Return a smaller copy of ``model`` that has only the units that ``plan`` keeps.

    The layers that read removed units are compensated for the loss. Before it is returned, the copy
    is compared with the full-size model in which the removed units are masked and the same
    compensation is made (:func:`agflow.pruning.masks.masked`): on real images (random ones without
    a loader) their logits must agree.

    Parameters
    ----------
    model : float32; left as it is
    plan : keeps at least one unit of every layer it names that is not a residual branch, and as
        many in each of a layer's parts. Its layers inside a removed branch do not matter. A plan
        from statistics at a smaller image size (``calibrate(image_size=…)``) prunes
        ``agflow.models.at_image_size(model, …)``, so that the copy is of that size
    loader : batches of images [B, C, H, W], with or without labels (:mod:`agflow.data.batches`),
        read once; a few hundred images suffice. Only ``compensate="none"`` does without. Views of
        the same images help (ResNet-56 for CIFAR-10, its middle channels at a quarter of their
        operations, means of three draws of 512 images: 10.4 points lost, 9.3 where the loader also
        gave the images mirrored)
    compensate : how the weights of the layers that read removed units change

        - ``"ridge"``, the best: sequential (layer-wise) reconstruction by least squares, which also
          takes back the error of earlier layers
          (:func:`agflow.pruning.sequential.reconstruct_sequentially`). Every layer behind the first
          pruned one that adds to the residual stream is fitted, also where it loses nothing. The
          only one that compensates for branches, stream channels and pairs of query and key, in
          every downstream reader. Of a traced model every convolution and linear layer behind the
          first cut is fitted but the classifier (:mod:`agflow.pruning.graph_reconstruction`)
        - ``"ridge_at_once"``: a least-squares prediction of the removed channels in the dense
          model, for models that are no sequence of residual blocks or more images than memory holds
        - ``"mean"``: the mean of the removed channels
        - ``"none"``: nothing (for the last three see
          :func:`agflow.pruning.least_squares.compensated`)

    Returns
    -------
    the pruned model, on the device of ``model`` and with the training mode of each submodule

    Raises
    ------
    UnsupportedModelError, DtypeError
        No adapter handles the model, or it has no image size of its own and the plan has one; or it
        is not float32.
    UnknownLayerError, ShapeError
        The plan was made for another model: a layer is missing or has another number of units.
    InvalidValueError
        Unknown compensation, one that needs images and no loader, or ``"ridge"`` for a model that
        is no sequence of blocks; the plan keeps nothing of a layer, or unequal counts in parts that
        must stay alike.
    EmptyError
        The loader has no image.
    NonFiniteError
        A layer's activations hold NaN or infinity.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=64)
    >>> loader = DataLoader(images, batch_size=32)
    >>> plan = agflow.plan(agflow.calibrate(model, loader), macs=0.5)
    >>> light = agflow.prune(model, plan, loader)
    >>> agflow.count_macs(light) == plan.macs
    True
    """
    # The equations of the repair need more digits than mixed precision leaves their coefficients.
    model = unwrapped(model)
    check_values(model)
    with torch.autocast(device_of(model).type, enabled=False):
        return _prune(model, plan, loader, compensate)


def _prune(model: nn.Module, plan: Plan, loader: Iterable | None, compensate: str) -> nn.Module:
    check_compensation(compensate)
    if compensate != "none" and loader is None:
        raise InvalidValueError(
            f"compensate={compensate!r} needs images: pass a loader, or compensate='none'"
        )
    loader = None if loader is None else sized_by(model, loader)
    model = without_inference_tensors(model)
    adapter = examined(model)
    plan = Plan.of_any(plan)
    if plan.image_size is not None:
        model = at_image_size(model, plan.image_size)
    check_dtype(model)
    cuts = _cuts(adapter, model, plan)
    images, batches = (
        (_random_images(adapter, model), ()) if loader is None else _first_images(model, loader)
    )
    if isinstance(adapter, TracedModel):
        pruned, reference = prune_by_graph(model, cuts, batches, compensate)
        with masked(adapter, reference, cuts):
            _check_agreement(pruned, reference, images[:AGREEMENT_IMAGES])
        _copy_training_modes(pruned, model)
        return pruned
    pruned, reference = (copy_of(model).eval() for _ in range(2))
    cuts = _prune_unread(adapter, pruned, cuts)
    downstream = _downstream(adapter.layers(model), pruned, cuts) if compensate == "ridge" else []
    pruner = _Pruner(adapter, pruned, reference, cuts, downstream)
    if compensate == "ridge":
        reconstruct_sequentially(
            adapter,
            model,
            pruned,
            pruner.kept_inputs,
            images[:SAMPLE_IMAGES],
            batches,
            pruner.prune_reader,
            kept_stream_D=pruner.stream_D,
        )
    else:
        _compensate_at_once(pruned, pruner.kept_inputs, batches, compensate, pruner.prune_reader)
    with masked(adapter, reference, cuts):
        _check_agreement(pruned, reference, images[:AGREEMENT_IMAGES])
    _copy_training_modes(pruned, model)
    return pruned


def check_dtype(model: nn.Module) -> None:
    """DtypeError for a model in another precision than pruning and repair compute in."""
    dtype = first_parameter(model).dtype
    if dtype is not torch.float32:
        raise DtypeError(
            f"the model's parameters are {dtype}, expected torch.float32: call model.float() first "
            "and convert the pruned model back"
        )


def _cuts(adapter: Adapter, model: nn.Module, plan: Plan) -> Cuts:
    """Return what the plan removes, checked against the model."""
    present = {layer.name: layer for layer in adapter.layers(model)}
    cuts = []
    for planned in plan.layers:
        layer = present.get(planned.name)
        if layer is None:
            raise UnknownLayerError(
                f"layer {planned.name!r} of the plan is not in the model; "
                f"it has {', '.join(present)}"
            )
        if planned.units != layer.units:
            raise ShapeError(
                f"layer {layer.name} has {layer.units} units, the plan was made for "
                f"{planned.units}: plan from statistics of this model"
            )
        keep_U = torch.from_numpy(plan.kept(layer.name))
        if len(keep_U) == 0 and not layer.may_vanish:
            raise InvalidValueError(
                f"the plan keeps no unit of layer {layer.name}, expected at least one"
            )
        counts = torch.bincount(keep_U // (layer.units // layer.parts), minlength=layer.parts)
        if counts.min() != counts.max():
            raise InvalidValueError(
                f"the plan keeps {counts.min()} to {counts.max()} units in the {layer.parts} parts "
                f"of layer {layer.name}, expected as many in each: the heads of an attention must "
                "stay alike"
            )
        if len(keep_U) < layer.units:
            cuts.append((layer, keep_U))
    return cuts


def _prune_unread(adapter: Adapter, pruned: nn.Module, cuts: Cuts) -> Cuts:
    """Remove the units that no reader compensates for.

    Returns
    -------
    all cuts that apply: the layers of a removed branch are gone with it
    """
    for layer, keep_U in cuts:
        if layer.may_vanish:
            adapter.cut(pruned, layer, keep_U)
    present = {layer.name for layer in adapter.layers(pruned)}
    cuts = [(layer, keep_U) for layer, keep_U in cuts if layer.may_vanish or layer.name in present]
    for layer, keep_U in cuts:
        if not layer.may_vanish and not layer.reader:
            adapter.cut(pruned, layer, keep_U)
    return cuts


def _downstream(layers: list[ChannelGroup], pruned: nn.Module, cuts: Cuts) -> list[str]:
    """Return the remaining readers from the first pruned layer on, also those that lose nothing.

    The stream that they add to has changed.
    """
    names = {layer.name for layer, _ in cuts}
    first = next((i for i, layer in enumerate(layers) if layer.name in names), len(layers))
    present = set(dict(pruned.named_modules()))
    return [reader for reader in readers_of(layers[first:]) if reader in present]


class _Pruner:
    """Prunes a reader's inputs, and sets its new weights in the pruned and in the reference model.

    Attributes
    ----------
    kept_inputs : by reader that loses inputs or is among ``downstream``, the inputs that it keeps
    stream_D : channels of the stream that the pruned model has; None for all
    """

    def __init__(
        self,
        adapter: Adapter,
        pruned: nn.Module,
        reference: nn.Module,
        cuts: Cuts,
        downstream: list[str],
    ):
        self._adapter, self._pruned, self._reference = adapter, pruned, reference
        self.stream_D = next((keep_U for layer, keep_U in cuts if layer.kind == "embed"), None)
        self._cuts: dict[str, Cuts] = {reader: [] for reader in downstream}
        # Channels in the parts of a layer are removed before parts, while all parts are there.
        for layer, keep_U in sorted(cuts, key=lambda cut: cut[0].parts == 1):
            if layer.reader:
                self._cuts.setdefault(layer.reader, []).append((layer, keep_U))
        self.kept_inputs = {
            reader: _kept_by_all(linear_at(pruned, reader).in_features, of_reader)
            for reader, of_reader in self._cuts.items()
        }

    @torch.no_grad()
    def prune_reader(
        self, reader: str, weight_OK: torch.Tensor, bias_O: torch.Tensor | None
    ) -> None:
        """Remove the inputs that the reader loses, and set its weight [O, K] and bias [O]."""
        for layer, keep_U in self._cuts[reader]:
            self._adapter.cut(self._pruned, layer, keep_U)
        small, full = (linear_at(model, reader) for model in (self._pruned, self._reference))
        rows_O = torch.arange(full.out_features) if self.stream_D is None else self.stream_D
        small.weight.copy_(weight_OK)
        full.weight[rows_O[:, None], self.kept_inputs[reader]] = weight_OK
        if bias_O is not None:
            small.bias.copy_(bias_O)
            full.bias[rows_O] = bias_O


def _kept_by_all(channels: int, cuts: Cuts) -> torch.Tensor:
    """Return those of the channels of one Y that every one of the cuts keeps."""
    votes_C = torch.zeros(channels, dtype=torch.int64)
    for layer, keep_U in cuts:
        votes_C[channels_of(keep_U, layer.unit_width)] += 1
    return (votes_C == len(cuts)).nonzero().flatten()


def _compensate_at_once(
    pruned: nn.Module,
    kept_inputs: Mapping[str, torch.Tensor],
    batches: Iterable,
    compensate: str,
    apply: Apply,
) -> None:
    """Compensate every reader from one pass over the images, while all still have their inputs."""
    measured = {} if compensate == "none" else moments(pruned, list(kept_inputs), batches)
    for name, keep_C in kept_inputs.items():
        reader = linear_at(pruned, name)
        apply(
            name, *compensated(reader.weight, reader.bias, keep_C, measured.get(name), compensate)
        )


def _copy_training_modes(pruned: nn.Module, model: nn.Module) -> None:
    """Give every submodule the mode of its namesake in ``model``, or of its parent if it is new."""
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in pruned.named_modules():
        module.training = modes.setdefault(name, modes.get(name.rpartition(".")[0]))


def _first_images(
    model: nn.Module, loader: Iterable
) -> tuple[torch.Tensor, Iterator[torch.Tensor]]:
    """Return the images of the first batch, and an iterator that still begins with that batch."""
    batches = (images.to(first_parameter(model)) for images in image_batches(loader))
    first = next(batches)
    check_image_shape(model, first)
    return first, itertools.chain([first], batches)


def _random_images(adapter: Adapter, model: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(AGREEMENT_IMAGES, *adapter.input_size(model), generator=generator)
    return images.to(first_parameter(model))


@torch.no_grad()
def _check_agreement(pruned: nn.Module, reference: nn.Module, images: torch.Tensor) -> None:
    images = images.to(device_of(pruned))
    difference = relative_difference(whole_output(pruned(images)), whole_output(reference(images)))
    if not difference <= AGREEMENT_TOLERANCE:
        raise InternalError(
            f"the pruned model's logits differ from the masked one's by {difference:.1e} of the "
            f"largest, expected at most {AGREEMENT_TOLERANCE:.0e}: "
            "the pruning was wrong and its result is not returned; please report the model"
        )
