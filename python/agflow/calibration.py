"""Calibration: activations and gradients of a frozen model, handed to the Go core while autograd still holds them.

Shape suffixes: B images, T tokens, R = B * T rows, C channels.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle
from tqdm.auto import tqdm

from agflow import arrow
from agflow._core.loader import core
from agflow.errors import DeviceError, EmptyError, InvalidValueError, ShapeError, UnknownLayerError
from agflow.intake import Intake
from agflow.looks import at_image_size
from agflow.models import Adapter, PrunableLayer, Tap, adapter_for, count_params, logits_of, model_name
from agflow.modes import modes_kept
from agflow.sessions import statistics_session
from agflow.statistics import Statistics
from agflow.tensorfiles import TensorFolder
from agflow.weight_gradients import WeightGradients

LOSS = "cross_entropy, sum over the batch"
NONFINITE = ("refuse", "skip")

Sink = Callable[[int, int, torch.Tensor, torch.Tensor], None]
"""Takes (layer index, images, Y [R, C], G [R, C])."""


def calibrate(model: nn.Module, loader: Iterable, *, batches: int = 16, groups: Sequence[str] = ("mlp", "heads"),
              weight_gradients: bool = False, image_size: int | tuple[int, int] | None = None, nonfinite: str = "refuse",
              dump: str | os.PathLike | None = None, seed: int = 0, progress: bool = True) -> Statistics:
    """Run ``batches`` batches forward and backward and sum up what each prunable unit carries.

    Y is the input of the layer that reads the units (fc2, proj), G = ∂L/∂Y with L the cross entropy *summed* over the
    batch: the gradient of an image is that of its own loss, whatever the batch size. AGF utility is
    U_c = E|Y_c · G_c| (arXiv 2603.12354). For ``"embed"`` Y is the residual stream before every norm that reads it, the
    rows of all these places together; for ``"block"`` what a branch adds to it; for the pairs of a query and a key channel
    (``"head_dim"``) the queries. Weights are frozen meanwhile, no weight gradient is computed unless asked
    for, and the model's flags, modes, hooks and gradients are afterwards what they were, even after an error.

    On the CPU the core reads Y and G where autograd keeps them. On a CUDA device they are summed there
    (:func:`agflow.device_sums.device_sums`) and only the sums leave it.

    Parameters
    ----------
    model : float32, float64, float16 or bfloat16, on the CPU or a CUDA device; inside ``torch.autocast`` the
        activations may be of another of these types
    loader : batches of (images [B, C, H, W], labels int64 [B]); images are moved to the model's device and type
    batches : how many to take at most
    groups : ``"mlp"`` (hidden channels), ``"heads"`` (attention heads), ``"head_dim"`` (channels inside the heads, of the
        values and of queries and keys), ``"embed"`` (channels of the residual stream; holds the stream of all blocks and
        its gradients for the length of a batch), ``"block"`` (whole residual branches)
    weight_gradients : also sum w · ∂L/∂w of the attached weights, for criteria such as ``"taylor_weight"``. Costs the
        time of their gradients, and the memory of a gradient and of a sum (float32, or float64 for such models) of
        each attached weight.
    image_size : measure ``agflow.at_image_size(model, image_size)`` instead; the size goes into the metadata
        ``agflow.image_size`` (``"112x112"``: height, width), and from there into scores and plans, by which
        :func:`agflow.prune` cuts the model at that size. Costs, and so the shares of a plan's budget, are those of the
        uncut model *at that size*.
    nonfinite : what NaN or infinity in a batch does: ``"refuse"`` raises; ``"skip"`` leaves the batch out of the layers
        where it occurs, warns at the end, and records how many were left out in the metadata ``agflow.skipped``
    dump : folder that also gets the raw tensors as Arrow files, from which ``agflow`` computes the same statistics
        (those of weight gradients excepted)
    seed : recorded with the statistics: the seed the images were drawn with

    Raises
    ------
    UnsupportedModelError, DeviceError, DtypeError
        No adapter handles the model, or it has no image size of its own to change; it is neither on the CPU nor on a CUDA
        device; its activations have another type.
    InvalidValueError
        Unknown group or way with NaN, fewer than one batch, an image size the model cannot have, labels outside the model's
        classes, or ``dump`` together with ``nonfinite="skip"`` (dumped batches are whole).
    EmptyError
        The loader gave no batch.
    NonFiniteError
        A batch gave NaN or infinity; the message names layer, batch and place. With ``"skip"``: every batch of a layer
        did, or a weight's gradient did although Y and G were finite.
    FileError
        ``dump`` cannot be written or already holds Arrow files.
    """
    adapter = adapter_for(model)
    _check(model, batches, nonfinite, dump)
    metadata = {"agflow.loss": LOSS, "agflow.seed": str(seed)}
    if image_size is not None:
        model = at_image_size(model, image_size)
        metadata["agflow.image_size"] = "x".join(map(str, adapter.input_size(model)[1:]))
    layers = _chosen(adapter.layers(model), groups)
    dense = {"name": model_name(model), "macs": adapter.macs(model), "params": count_params(model)}
    costs = adapter.costs(model)
    if costs is not None:
        metadata["agflow.costs"] = json.dumps(costs, separators=(",", ":"))
    model_metadata = {"agflow.model": dense["name"], "agflow.model_macs": str(dense["macs"]), "agflow.model_params": str(dense["params"])}
    folder = None if dump is None else TensorFolder(dump, {**model_metadata, **metadata})
    weights = list(_weights(adapter, model, layers))
    fingerprint, place = _Fingerprint(), next(model.parameters())

    with statistics_session(dense, layers, metadata=metadata) as session:
        _add_weights(session, weights)
        intake = Intake(session, layers, nonfinite, folder)
        taken = tqdm(itertools.islice(loader, batches), total=batches, desc="calibrate", disable=None if progress else True, leave=False)
        with WeightGradients(adapter, model, layers if weight_gradients else []) as gradients, \
                capture(model, layers, intake.take, trainable=gradients.parameters):
            for images, labels in taken:
                fingerprint.add(images, labels)
                per_image_loss(logits_of(model(images.to(place))), labels.to(place.device)).backward()
                gradients.add_batch(intake.end_batch())
        if not intake.batches:
            raise EmptyError("the loader gave no batch; expected at least one (images, labels) pair: check the dataset's length and limit")
        skipped = intake.skipped()
        if weight_gradients:
            _add_weight_gradients(session, weights, _weights(adapter, gradients.as_model(), layers, torch.zeros))
        batch = arrow.call_for_batch(core().statistics_table, session)

    data = {"agflow.data": fingerprint.hexdigest()}
    if folder is not None:
        folder.write_weights(((layers[index], *rest) for index, *rest in weights), data)
    if skipped:
        _warn(skipped)
        data["agflow.skipped"] = json.dumps(skipped)
    return Statistics(batch.replace_schema_metadata({**batch.schema.metadata, **data}))


@contextmanager
def capture(model: nn.Module, layers: Sequence[PrunableLayer], sink: Sink, *, trainable: Collection[nn.Parameter] = ()) -> Iterator[None]:
    """While open, each forward pass of ``model`` hands its layers' activations and gradients to ``sink`` when it is
    gone through backward.

    The sink is called during backward, once a layer and batch, with [R, C] of the tensors autograd works on (views of them
    where a layer is seen at one place as a whole): it must not keep or change them. The weights are frozen, those in ``trainable`` excepted, and the model evaluates; on exit requires_grad, modes
    and hooks are as before. An error of the sink comes out of ``backward()``.

    Raises
    ------
    UnknownLayerError
        The model has no module where a layer is seen; the layers are those of another model.
    """
    with torch.enable_grad(), modes_kept(model), _frozen(model, trainable), adapter_for(model).watchable(model), ExitStack() as hooks:
        modules = dict(model.named_modules())
        model.eval()
        for index, layer in enumerate(layers):
            places = _Places(index, len(layer.seen_at), sink)
            for number, tap in enumerate(layer.seen_at):
                if tap.module not in modules:
                    raise UnknownLayerError(f"layer {layer.name} is read by {tap.module}, which the model does not have: "
                                            "use the layers of this model's adapter")
                hooks.callback(_watch(modules[tap.module], tap, partial(places.add, number)).remove)
        yield


def per_image_loss(logits_BK: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """Cross entropy summed over the batch, so that an image's gradient does not depend on its batch.

    Raises
    ------
    ShapeError
        Logits and labels do not match.
    InvalidValueError
        A label is not one of the classes.
    """
    if logits_BK.ndim != 2 or labels_B.shape != logits_BK.shape[:1]:
        raise ShapeError(f"logits are {list(logits_BK.shape)} and labels {list(labels_B.shape)}, expected [images, classes] and [images]")
    low, high = int(labels_B.min()), int(labels_B.max())
    if low < 0 or high >= logits_BK.shape[1]:
        raise InvalidValueError(f"labels run from {low} to {high}, the model has {logits_BK.shape[1]} classes: use labels of the model's own classes")
    wide_BK = logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))  # a sum in sixteen bits would overflow or round
    return F.cross_entropy(wide_BK, labels_B, reduction="sum")


class _Places:
    """Puts together what a layer carries at all places where it is seen, token after token, and hands it on."""

    def __init__(self, index: int, count: int, sink: Sink):
        self._index, self._sink = index, sink
        self._seen: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * count

    def add(self, place: int, y_BTC: torch.Tensor, g_BTC: torch.Tensor) -> None:
        self._seen[place] = y_BTC, g_BTC
        if None in self._seen:
            return
        pairs, self._seen = self._seen, [None] * len(self._seen)
        y_BTC, g_BTC = pairs[0]
        if len(pairs) > 1:
            y_BTC, g_BTC = (torch.cat([x.unflatten(0, (len(x), -1)) if x.ndim == 2 else x for x in side], 1) for side in zip(*pairs, strict=True))
        self._sink(self._index, len(y_BTC), _rows(y_BTC), _rows(g_BTC))


def _watch(module: nn.Module, tap: Tap, add: Callable[[torch.Tensor, torch.Tensor], None]) -> RemovableHandle:
    """Whenever the module runs, what passes the tap and its gradient are given to ``add`` at backward."""
    def watch(y_BTC: torch.Tensor) -> None:
        if not y_BTC.requires_grad:
            y_BTC.requires_grad_()  # with frozen weights the gradient of the first watched layer has to end somewhere: here
        held = [y_BTC.detach()[..., tap.channels]]  # shares y's memory; y itself in its own hook would be a cycle that only gc frees

        def at_backward(g_BTC: torch.Tensor) -> None:
            add(held.pop(), g_BTC.detach()[..., tap.channels])  # the hook outlives the backward pass, what it held need not

        y_BTC.register_hook(at_backward)

    if tap.side == "input":
        return module.register_forward_pre_hook(lambda _, inputs: watch(inputs[0]))
    return module.register_forward_hook(lambda _, inputs, output: watch(output))


def _rows(x_BTC: torch.Tensor) -> torch.Tensor:
    """View as [R, C]. Autograd may hand out expanded or transposed gradients: only those are copied."""
    return x_BTC.contiguous().flatten(0, -2)


@contextmanager
def _frozen(model: nn.Module, trainable: Collection[nn.Parameter]) -> Iterator[None]:
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        for parameter in trainable:
            parameter.requires_grad_()
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _warn(skipped: dict[str, int]) -> None:
    layers = ", ".join(f"{name} ({count})" for name, count in skipped.items())
    warnings.warn(f"batches with NaN or infinity were left out of {len(skipped)} layers, as nonfinite='skip' asks: {layers}", stacklevel=3)


class _Fingerprint:
    """SHA-256 of the images and labels seen, the same for any batch size."""

    def __init__(self):
        self._pixels, self._labels = hashlib.sha256(), hashlib.sha256()

    def add(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        for digest, tensor in ((self._pixels, images), (self._labels, labels)):
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())

    def hexdigest(self) -> str:
        return hashlib.sha256(self._pixels.digest() + self._labels.digest()).hexdigest()


def _check(model: nn.Module, batches: int, nonfinite: str, dump: str | os.PathLike | None) -> None:
    if batches < 1:
        raise InvalidValueError(f"batches is {batches}, expected at least 1")
    if nonfinite not in NONFINITE:
        raise InvalidValueError(f"nonfinite is {nonfinite!r}, expected one of: {', '.join(NONFINITE)}")
    if dump is not None and nonfinite == "skip":
        raise InvalidValueError("dump was given with nonfinite='skip', but dumped batches are whole: use nonfinite='refuse' with dump")
    device = next(model.parameters()).device
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"the model is on {device}, expected the CPU or a CUDA device: call model.cpu() before calibration")


def _chosen(layers: list[PrunableLayer], groups: Sequence[str]) -> list[PrunableLayer]:
    known = {layer.group for layer in layers}
    unknown = [group for group in groups if group not in known]
    if unknown or not groups:
        raise InvalidValueError(f"groups is {list(groups)}, expected some of: {', '.join(sorted(known))}")
    return [layer for layer in layers if layer.group in groups]


Weight = tuple[int, int, int, torch.Tensor]
"""(layer index, number within the layer, unit axis, weight [R, C])."""


def _weights(adapter: Adapter, model: nn.Module, layers: list[PrunableLayer], as_it_is: Callable[..., torch.Tensor] = torch.eye) -> Iterator[Weight]:
    """Everything attached to the units of the layers, on the CPU. The stream takes a branch as it is: weights ``as_it_is`` read it."""
    for index, layer in enumerate(layers):
        attached = [(weight_RC.detach().cpu().contiguous(), unit_axis) for weight_RC, unit_axis in adapter.weights(model, layer)]
        if layer.group == "block":
            attached.append((as_it_is(layer.unit_width, layer.unit_width, dtype=attached[0][0].dtype), 1))
        for number, (weight_RC, unit_axis) in enumerate(attached):
            yield index, number, unit_axis, weight_RC


def _add_weights(session: int, weights: Iterable[Weight]) -> None:
    for index, _, unit_axis, weight_RC in weights:
        arrow.call(core().statistics_add_weight, session, index, unit_axis, arrow.matrix(weight_RC, "weight"))


def _add_weight_gradients(session: int, weights: Iterable[Weight], gradients: Iterable[Weight]) -> None:
    for (index, _, unit_axis, weight_RC), (*_, gradient_RC) in zip(weights, gradients, strict=True):
        arrow.call(core().statistics_add_weight_gradient, session, index, unit_axis,
                   arrow.matrix(weight_RC, "weight"), arrow.matrix(gradient_RC, "weight gradient"))
