"""Calibration: sum up activations and gradients of a frozen model in the Go core.

Shape suffixes: B images, T tokens, R = B * T rows, C channels.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from agflow._core import arrow
from agflow._core.loader import core
from agflow._utils.defaults import default
from agflow._utils.devices import device_of
from agflow._utils.modes import with_gradients, without_inference_tensors
from agflow._utils.sequences import names_of
from agflow.calibration.dump import TensorFolder
from agflow.calibration.gather import gather_shards
from agflow.calibration.hooks import capture
from agflow.calibration.loss import Loss, Reached, SummedLoss, batches_for, loss_name
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
from agflow.data.batches import Batch, check_loader
from agflow.data.digest import ImageDigest
from agflow.data.shares import Shares
from agflow.errors import DeviceError, InvalidValueError
from agflow.models import (
    Adapter,
    ChannelGroup,
    count_params,
    model_name,
)
from agflow.models.account import examined
from agflow.models.callables import unwrapped
from agflow.models.fitting import check_groups
from agflow.models.layer_names import note_layers
from agflow.models.noting import sized_by
from agflow.models.resolution import at_image_size


@with_gradients
def calibrate(
    model: nn.Module,
    loader: Iterable,
    *,
    batches: int = default("calibrate", "batches"),
    groups: str | Sequence[str] = default("calibrate", "groups"),
    loss: str | Callable[[nn.Module, Batch], torch.Tensor] = default("calibrate", "loss"),
    image_size: int | tuple[int, int] | None = None,
    weight_gradients: bool = default("calibrate", "weight_gradients"),
    options: CalibrationOptions = CalibrationOptions(),
) -> Statistics:
    """Measure the prunable units of a model: sums of activations and gradients over some batches.

    Y is the input of the layer that reads the units (fc2, proj; of convolutions the maps behind
    norm and activation, one row a position), G = ∂L/∂Y with L the loss of each image, *summed* over
    the batch: the gradient of an image is that of its own loss, whatever the batch size. AGF
    utility is U_c = E|Y_c · G_c| (arXiv 2603.12354). For ``"embed"`` Y is the residual stream
    before every norm that reads it, the rows of all these places together; for ``"block"`` what a
    branch adds to the stream; for the pairs of a query and a key channel (``"head_dim"``) the
    queries, or the keys that several heads of queries share. Weights are frozen meanwhile, and no
    weight gradient is computed unless asked for. Afterwards, even after an error, the model's
    flags, modes, hooks and gradients are as before.

    On the CPU the core reads Y and G where autograd keeps them. On a CUDA device they are summed
    there (:func:`agflow.calibration.device_sums`), and only the sums leave it.

    Parameters
    ----------
    model : float32, float64, float16 or bfloat16, on the CPU or a CUDA device; inside
        ``torch.autocast`` the activations may be of another of these types
    loader : batches of (images [B, C, H, W], labels [B]), see :mod:`agflow.data.batches`; images
        are brought to the model's device and type. Under ``torchrun``, with ``DataLoader(…,
        sampler=DistributedSampler(dataset))``, each rank measures its share and all get the
        statistics of all (:mod:`agflow.calibration.gather`)
    batches : how many to take at most, of all ranks together
    groups : ``"mlp"`` (hidden channels), ``"heads"`` (attention heads), ``"head_dim"`` (channels
        inside the heads, of the values and of queries and keys), ``"embed"`` (channels of the
        residual stream; holds the stream of all blocks and its gradients for the length of a
        batch), ``"block"`` (whole residual branches)
    loss : ``"labels"``, the cross entropy of the labels; ``"self"``, that of labels drawn, by
        ``options.seed``, from the model's own answers softened by ``options.temperature``: the
        loader may give images alone, and labels are not read; ``"features"``, a random direction of
        the normalised final hidden state (:func:`agflow.calibration.loss.hidden_loss`), which needs
        neither labels nor a classifier; or a function of the model and a batch
        (:class:`agflow.data.batches.Batch`: images, labels, logits) that calls the model once and
        returns the loss of each image, [B]. Recorded in the metadata ``agflow.loss``, functions by
        module and name
    image_size : measure ``agflow.models.at_image_size(model, image_size)`` instead. The size goes
        into the metadata ``agflow.image_size`` (``"112x112"``: height, width), and from there into
        scores and plans, by which :func:`agflow.prune` cuts the model at that size. Costs, and so
        the shares of a plan's budget, are those of the dense model *at that size*.
    weight_gradients : also sum w · ∂L/∂w of the attached weights, for criteria such as
        ``"taylor_weight"``. Costs the time of their gradients, and the memory of a gradient and of
        a sum (float32, or float64 for such models) of each attached weight.
    options : what happens to NaN and infinity, whether the raw tensors are kept, and which seed is
        recorded

    Raises
    ------
    UnsupportedModelError, DeviceError, DtypeError
        No adapter handles the model, or it has no image size of its own to change, or no classifier
        for a loss that needs one; it is neither on the CPU nor on a CUDA device; its activations
        have another type.
    InvalidValueError, ShapeError
        Unknown group or loss, a loss that is none of each image or does not depend on them, fewer
        than one batch, an image size the model cannot have, labels outside the model's classes, or
        a batch that is not one of images and labels, or not for this model.
    EmptyError
        The loader gave no image.
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
    model = unwrapped(model)
    _check(model, batches)
    check_loader(loader)
    loader = sized_by(model, loader)
    original, model = model, without_inference_tensors(model)
    adapter = examined(model)
    note_layers(adapter, original)
    metadata = {"agflow.loss": loss_name(loss, options), "agflow.seed": str(options.seed)}
    if image_size is not None:
        model = at_image_size(model, image_size)
        metadata["agflow.image_size"] = "x".join(map(str, adapter.input_size(model)[1:]))
    groups = names_of(groups, "groups")
    check_groups(model, groups)
    layers = [layer for layer in adapter.layers(model) if layer.kind in groups]
    costs = adapter.costs(model)
    if costs is not None:
        metadata["agflow.costs"] = _compact(costs)
    metadata["agflow.channel_groups"] = _compact({layer.name: layer.to_json() for layer in layers})
    if kept := adapter.kept(model):
        metadata["agflow.kept"] = _compact([asdict(channels) for channels in kept])
    dense = {"name": model_name(model), "macs": adapter.macs(model), "params": count_params(model)}
    measuring = _Measuring(adapter, model, layers, dense, metadata, loss, weight_gradients, options)
    shares = Shares.of(loader, shuffled=True)
    if shares is None:
        return measuring.statistics(itertools.islice(loader, batches), batches)
    if options.dump is not None:
        raise InvalidValueError(
            "dump keeps the tensors of one process, and several share this loader: leave dump out, "
            "or run without torchrun"
        )
    return gather_shards(shares, batches, measuring.statistics)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


@dataclass(frozen=True)
class _Measuring:
    """A model that is measured, and how."""

    adapter: Adapter
    model: nn.Module
    layers: list[ChannelGroup]
    dense: dict[str, Any]
    metadata: dict[str, str]
    loss: Loss
    weight_gradients: bool
    options: CalibrationOptions

    def statistics(self, loader: Iterable, total: int) -> Statistics:
        """The statistics of all batches of ``loader``, at most ``total``."""
        adapter, model, layers = self.adapter, self.model, self.layers
        folder = _tensor_folder(self.options, self.dense, self.metadata)
        weights = list(attached_weights(adapter, model, layers))
        with statistics_session(self.dense, layers, metadata=self.metadata) as session:
            add_weights(session, weights)
            sink = StatisticsSink(session, layers, self.options.nonfinite, folder)
            taken = batches_for(self.loss, loader, total)
            summed = layers if self.weight_gradients else []
            with WeightGradients(adapter, model, summed) as gradients:
                data = {"agflow.data": self._run(taken, sink, gradients)}
            skipped = sink.skipped()
            if self.weight_gradients:
                sums = attached_weights(adapter, gradients.as_model(), layers, torch.zeros)
                add_weight_gradients(session, weights, sums)
            batch = arrow.call_for_batch(core().statistics_table, session)

        if folder is not None:
            folder.write_weights(((layers[i], n, axis, w_RC) for i, n, axis, w_RC in weights), data)
        if skipped:
            _warn(skipped)
            data["agflow.skipped"] = json.dumps(skipped)
        return Statistics(batch.replace_schema_metadata({**batch.schema.metadata, **data}))

    def _run(
        self, batches: Iterator[Batch], sink: StatisticsSink, gradients: WeightGradients
    ) -> str:
        """Run all batches forward and backward; returns the digest of their images and labels."""
        digest, reached = ImageDigest(), Reached(self.layers, sink.take)
        first = next(batches)
        loss = SummedLoss(self.loss, self.model, first.images, self.options)
        with capture(self.model, self.layers, reached.take, trainable=gradients.parameters):
            for batch in itertools.chain([first], batches):
                digest.add(batch.images, batch.labels)
                loss.of(batch).backward()
                reached.check(self.loss, len(batch.images))
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
        stacklevel=5,  # the caller of calibrate
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
