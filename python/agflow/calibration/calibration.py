"""Calibration: sum up activations and gradients of a frozen model in the Go core.

Shape suffixes: B images, T tokens, R = B * T rows, C channels.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from agflow._core import arrow
from agflow._core.loader import core
from agflow._utils.defaults import default
from agflow._utils.devices import device_of, first_parameter
from agflow._utils.loaders import batches_of
from agflow.calibration.dump import TensorFolder
from agflow.calibration.hooks import capture
from agflow.calibration.loss import LOSS_NAME, per_image_loss
from agflow.calibration.options import CalibrationOptions
from agflow.calibration.session import statistics_session
from agflow.calibration.sink import StatisticsSink
from agflow.calibration.statistics import Statistics
from agflow.calibration.weight_gradients import WeightGradients
from agflow.calibration.weights import (
    add_weight_gradients,
    add_weights,
    attached_weights,
)
from agflow.data.digest import ImageDigest
from agflow.errors import DeviceError, InvalidValueError
from agflow.models import (
    PrunableLayer,
    count_params,
    logits_of,
    model_name,
)
from agflow.models.account import measurable
from agflow.models.resolution import at_image_size


def calibrate(
    model: nn.Module,
    loader: Iterable,
    *,
    batches: int = default("calibrate", "batches"),
    groups: Sequence[str] = default("calibrate", "groups"),
    image_size: int | tuple[int, int] | None = None,
    weight_gradients: bool = default("calibrate", "weight_gradients"),
    options: CalibrationOptions = CalibrationOptions(),
    seed: int = default("common", "seed"),
) -> Statistics:
    """Measure the prunable units of a model: sums of activations and gradients over some batches.

    Y is the input of the layer that reads the units (fc2, proj), G = ∂L/∂Y with L the cross entropy
    *summed* over the batch: the gradient of an image is that of its own loss, whatever the batch
    size. AGF utility is U_c = E|Y_c · G_c| (arXiv 2603.12354). For ``"embed"`` Y is the residual
    stream before every norm that reads it, the rows of all these places together; for ``"block"``
    what a branch adds to the stream; for the pairs of a query and a key channel (``"head_dim"``)
    the queries. Weights are frozen meanwhile, and no weight gradient is computed unless asked for.
    Afterwards, even after an error, the model's flags, modes, hooks and gradients are as before.

    On the CPU the core reads Y and G where autograd keeps them. On a CUDA device they are summed
    there (:func:`agflow.calibration.device_sums`), and only the sums leave it.

    Parameters
    ----------
    model : float32, float64, float16 or bfloat16, on the CPU or a CUDA device; inside
        ``torch.autocast`` the activations may be of another of these types
    loader : batches of (images [B, C, H, W], labels int64 [B]); images are moved to the model's
        device and type
    batches : how many to take at most
    groups : ``"mlp"`` (hidden channels), ``"heads"`` (attention heads), ``"head_dim"`` (channels
        inside the heads, of the values and of queries and keys), ``"embed"`` (channels of the
        residual stream; holds the stream of all blocks and its gradients for the length of a
        batch), ``"block"`` (whole residual branches)
    image_size : measure ``agflow.models.at_image_size(model, image_size)`` instead. The size goes
        into the metadata ``agflow.image_size`` (``"112x112"``: height, width), and from there into
        scores and plans, by which :func:`agflow.prune` cuts the model at that size. Costs, and so
        the shares of a plan's budget, are those of the dense model *at that size*.
    weight_gradients : also sum w · ∂L/∂w of the attached weights, for criteria such as
        ``"taylor_weight"``. Costs the time of their gradients, and the memory of a gradient and of
        a sum (float32, or float64 for such models) of each attached weight.
    options : what happens to NaN and infinity, and whether the raw tensors are kept
    seed : recorded with the statistics: the seed the images were drawn with

    Raises
    ------
    UnsupportedModelError, DeviceError, DtypeError
        No adapter handles the model, or it has no image size of its own to change; it is neither on
        the CPU nor on a CUDA device; its activations have another type.
    InvalidValueError
        Unknown group, fewer than one batch, an image size the model cannot have, or labels outside
        the model's classes.
    EmptyError
        The loader gave no batch.
    NonFiniteError
        A batch gave NaN or infinity; the message names layer, batch and place. With
        ``CalibrationOptions(nonfinite="skip")``: every batch of a layer did, or a weight's gradient
        did although Y and G were finite.
    FileError
        ``options.dump`` cannot be written or already holds Arrow files.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=32)
    >>> statistics = agflow.calibrate(model, DataLoader(images, batch_size=16))
    >>> statistics
    <agflow.Statistics: vit_tiny_patch16_224, 12 layers, 3096 units, 32 images, 2 batches>
    >>> agflow.score(statistics, "agf")["score"].shape
    (3096,)
    """
    _check(model, batches)
    adapter = measurable(model)
    metadata = {"agflow.loss": LOSS_NAME, "agflow.seed": str(seed)}
    if image_size is not None:
        model = at_image_size(model, image_size)
        metadata["agflow.image_size"] = "x".join(map(str, adapter.input_size(model)[1:]))
    layers = _chosen(adapter.layers(model), groups)
    costs = adapter.costs(model)
    if costs is not None:
        metadata["agflow.costs"] = json.dumps(costs, separators=(",", ":"))
    dense = {"name": model_name(model), "macs": adapter.macs(model), "params": count_params(model)}
    folder = _tensor_folder(options, dense, metadata)
    weights = list(attached_weights(adapter, model, layers))

    with statistics_session(dense, layers, metadata=metadata) as session:
        add_weights(session, weights)
        sink = StatisticsSink(session, layers, options.nonfinite, folder)
        taken = batches_of(itertools.islice(loader, batches), "calibrate", total=batches)
        with WeightGradients(adapter, model, layers if weight_gradients else []) as gradients:
            data = {"agflow.data": _run(model, taken, layers, sink, gradients)}
        skipped = sink.skipped()
        if weight_gradients:
            summed = attached_weights(adapter, gradients.as_model(), layers, torch.zeros)
            add_weight_gradients(session, weights, summed)
        batch = arrow.call_for_batch(core().statistics_table, session)

    if folder is not None:
        folder.write_weights(((layers[i], n, axis, w_RC) for i, n, axis, w_RC in weights), data)
    if skipped:
        _warn(skipped)
        data["agflow.skipped"] = json.dumps(skipped)
    return Statistics(batch.replace_schema_metadata({**batch.schema.metadata, **data}))


def _run(
    model: nn.Module,
    batches: Iterable,
    layers: Sequence[PrunableLayer],
    sink: StatisticsSink,
    gradients: WeightGradients,
) -> str:
    """Run all batches forward and backward; returns the digest of their images and labels."""
    digest, inputs = ImageDigest(), first_parameter(model)
    with capture(model, layers, sink.take, trainable=gradients.parameters):
        for images, labels in batches:
            digest.add(images, labels)
            logits_BK = logits_of(model(images.to(inputs)))
            per_image_loss(logits_BK, labels.to(inputs.device)).backward()
            gradients.add_batch(sink.end_batch())
    return digest.hexdigest()


def _tensor_folder(
    options: CalibrationOptions, dense: dict[str, Any], metadata: dict[str, str]
) -> TensorFolder | None:
    if options.dump is None:
        return None
    of_model = {
        "agflow.model": dense["name"],
        "agflow.model_macs": str(dense["macs"]),
        "agflow.model_params": str(dense["params"]),
    }
    return TensorFolder(options.dump, {**of_model, **metadata})


def _warn(skipped: dict[str, int]) -> None:
    layers = ", ".join(f"{name} ({count})" for name, count in skipped.items())
    warnings.warn(
        f"batches with NaN or infinity were left out of {len(skipped)} layers, as nonfinite='skip' "
        f"asks: {layers}",
        stacklevel=3,
    )


def _check(model: nn.Module, batches: int) -> None:
    if batches < 1:
        raise InvalidValueError(f"batches is {batches}, expected at least 1")
    device = device_of(model)
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(
            f"the model is on {device}, expected the CPU or a CUDA device: call model.cpu() before "
            "calibration"
        )


def _chosen(layers: list[PrunableLayer], groups: Sequence[str]) -> list[PrunableLayer]:
    known = {layer.group for layer in layers}
    unknown = [group for group in groups if group not in known]
    if unknown or not groups:
        raise InvalidValueError(
            f"groups is {list(groups)}, expected some of: {', '.join(sorted(known))}"
        )
    return [layer for layer in layers if layer.group in groups]
