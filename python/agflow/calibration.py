"""Calibration: activations and gradients of a frozen model, handed to the Go core while autograd still holds them.

Shape suffixes: B images, T tokens, R = B * T rows, C channels.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from agflow import arrow
from agflow._core.loader import core
from agflow.errors import DeviceError, EmptyError, InvalidValueError, ShapeError, UnknownLayerError
from agflow.models import Adapter, PrunableLayer, adapter_for, count_params, model_name
from agflow.modes import modes_kept
from agflow.statistics import Statistics
from agflow.tensorfiles import TensorFolder

LOSS = "cross_entropy, sum over the batch"

Sink = Callable[[int, int, torch.Tensor, torch.Tensor], None]
"""Takes (layer index, images, Y [R, C], G [R, C])."""


def calibrate(model: nn.Module, loader: Iterable, *, batches: int = 16, groups: Sequence[str] = ("mlp", "heads"),
              dump: str | os.PathLike | None = None, seed: int = 0, progress: bool = True) -> Statistics:
    """Run ``batches`` batches forward and backward and sum up what each prunable unit carries.

    Y is the input of the layer that reads the units (fc2, proj), G = ∂L/∂Y with L the cross entropy *summed* over the
    batch: the gradient of an image is that of its own loss, whatever the batch size. AGF utility is
    U_c = E|Y_c · G_c| (arXiv 2603.12354). Weights are frozen meanwhile, no weight gradient is computed, and the
    model's flags, modes, hooks and gradients are afterwards what they were, even after an error.

    Parameters
    ----------
    model : float32, on the CPU
    loader : batches of (images float32 [B, C, H, W], labels int64 [B])
    batches : how many to take at most
    groups : ``"mlp"`` (hidden channels), ``"heads"`` (attention heads)
    dump : folder that also gets the raw tensors as Arrow files, from which ``agflow`` computes the same statistics
    seed : recorded with the statistics: the seed the images were drawn with

    Raises
    ------
    UnsupportedModelError, DeviceError, DtypeError
        No adapter handles the model; it is not on the CPU; it is not float32.
    InvalidValueError
        Unknown group, fewer than one batch, labels outside the model's classes.
    EmptyError
        The loader gave no batch.
    NonFiniteError
        A batch gave NaN or infinity; the message names layer, batch and place.
    FileError
        ``dump`` cannot be written or already holds Arrow files.
    """
    adapter = adapter_for(model)
    _check(model, batches)
    layers = _chosen(adapter.layers(model), groups)
    dense = {"name": model_name(model), "macs": adapter.macs(model), "params": count_params(model)}
    metadata = {"agflow.loss": LOSS, "agflow.seed": str(seed)}
    model_metadata = {"agflow.model": dense["name"], "agflow.model_macs": str(dense["macs"]), "agflow.model_params": str(dense["params"])}
    folder = None if dump is None else TensorFolder(dump, {**model_metadata, **metadata})
    weights = list(_weights(adapter, model, layers))
    fingerprint, pending = _Fingerprint(), []

    with _session({"model": dense, "layers": [_as_json(layer) for layer in layers], "workers": 1, "metadata": metadata}) as session:
        for index, _, unit_axis, weight_RC in weights:
            arrow.call(core().statistics_add_weight, session, index, unit_axis, arrow.matrix(weight_RC, "weight"))

        def sink(index: int, images: int, y_RC: torch.Tensor, g_RC: torch.Tensor) -> None:
            arrow.call(core().statistics_add, session, index, images, arrow.matrix(y_RC, "y"), arrow.matrix(g_RC, "g"))
            if folder is not None:
                pending.append((index, images, y_RC, g_RC))

        taken = tqdm(itertools.islice(loader, batches), total=batches, desc="calibrate", disable=None if progress else True, leave=False)
        with capture(model, layers, sink):
            for images, labels in taken:
                fingerprint.add(images, labels)
                per_image_loss(model(images), labels).backward()
                if folder is not None:
                    folder.write_batch((layers[index], *rest) for index, *rest in sorted(pending, key=lambda pair: pair[0]))
                    pending.clear()
        if not fingerprint.images:
            raise EmptyError("the loader gave no batch; expected at least one (images, labels) pair: check the dataset's length and limit")
        batch = arrow.call_for_batch(core().statistics_table, session)

    data = {"agflow.data": fingerprint.hexdigest()}
    if folder is not None:
        folder.write_weights(((layers[index], *rest) for index, *rest in weights), data)
    return Statistics(batch.replace_schema_metadata({**batch.schema.metadata, **data}))


@contextmanager
def capture(model: nn.Module, layers: Sequence[PrunableLayer], sink: Sink) -> Iterator[None]:
    """While open, every backward pass through ``model`` hands each layer's activations and gradients to ``sink``.

    The sink is called during backward, with views [R, C] of the tensors autograd works on: it must not keep or change
    them. The weights are frozen and the model evaluates; on exit requires_grad, modes and hooks are as before.
    An error of the sink comes out of ``backward()``.

    Raises
    ------
    UnknownLayerError
        The model has no module where a layer is read; the layers are those of another model.
    """
    modules = dict(model.named_modules())
    for layer in layers:
        if layer.reader not in modules:
            raise UnknownLayerError(f"layer {layer.name} is read by {layer.reader}, which the model does not have: use the layers of this model's adapter")
    with torch.enable_grad(), modes_kept(model), _frozen(model), ExitStack() as hooks:
        model.eval()
        for index, layer in enumerate(layers):
            hooks.callback(modules[layer.reader].register_forward_pre_hook(_watch(index, sink)).remove)
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
    return F.cross_entropy(logits_BK, labels_B, reduction="sum")


def _watch(index: int, sink: Sink) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
    def before_reader(reader: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        y_BTC = inputs[0]
        if not y_BTC.requires_grad:
            y_BTC.requires_grad_()  # with frozen weights the gradient of the first watched layer has to end somewhere: here
        held_BTC = y_BTC.detach()  # shares y's memory; y itself in its own hook would be a cycle that only gc frees

        def at_backward(g_BTC: torch.Tensor) -> None:
            sink(index, len(held_BTC), _rows(held_BTC), _rows(g_BTC.detach()))

        y_BTC.register_hook(at_backward)

    return before_reader


def _rows(x_BTC: torch.Tensor) -> torch.Tensor:
    """View as [R, C]. Autograd may hand out expanded or transposed gradients: only those are copied."""
    return x_BTC.contiguous().flatten(0, -2)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def _session(spec: dict) -> Iterator[int]:
    session = core().statistics_open(json.dumps(spec))
    try:
        yield session
    finally:
        core().statistics_close(session)


class _Fingerprint:
    """SHA-256 of the images and labels seen, the same for any batch size."""

    def __init__(self):
        self.images = 0
        self._pixels, self._labels = hashlib.sha256(), hashlib.sha256()

    def add(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images += len(images)
        self._pixels.update(images.contiguous().numpy())
        self._labels.update(labels.contiguous().numpy())

    def hexdigest(self) -> str:
        return hashlib.sha256(self._pixels.digest() + self._labels.digest()).hexdigest()


def _check(model: nn.Module, batches: int) -> None:
    if batches < 1:
        raise InvalidValueError(f"batches is {batches}, expected at least 1")
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise DeviceError(f"the model is on {device}, expected the CPU: call model.cpu() before calibration")


def _chosen(layers: list[PrunableLayer], groups: Sequence[str]) -> list[PrunableLayer]:
    known = {layer.group for layer in layers}
    unknown = [group for group in groups if group not in known]
    if unknown or not groups:
        raise InvalidValueError(f"groups is {list(groups)}, expected some of: {', '.join(sorted(known))}")
    return [layer for layer in layers if layer.group in groups]


def _weights(adapter: Adapter, model: nn.Module, layers: list[PrunableLayer]) -> Iterator[tuple[int, int, int, torch.Tensor]]:
    """(layer index, number within the layer, unit axis, weight [R, C]) of everything attached to the units."""
    for index, layer in enumerate(layers):
        for number, (weight_RC, unit_axis) in enumerate(adapter.weights(model, layer)):
            yield index, number, unit_axis, weight_RC.detach().contiguous()


def _as_json(layer: PrunableLayer) -> dict:
    return {"name": layer.name, "group": layer.group, "units": layer.units, "unit_width": layer.unit_width,
            "unit_macs": layer.unit_macs, "unit_params": layer.unit_params}
