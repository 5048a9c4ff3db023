"""Why AGF prunes well and routes badly: its signal during a training, and AGF as a prior of images.

arXiv 2603.12354 says that the gradient signal of converged models is compressed, and therefore to
prune by AGF and to route by confidence. This module measures both.

Shape suffixes: B images of a batch, N images, R = B * T rows, C channels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from agflow._core import arrow
from agflow._core.loader import core
from agflow._utils.defaults import default
from agflow._utils.devices import device_of, first_parameter
from agflow._utils.loaders import CallbackLoader, SizedLoader
from agflow._utils.modes import with_gradients, without_inference_tensors
from agflow._utils.sequences import names_of
from agflow.calibration.calibration import calibrate
from agflow.calibration.hooks import capture
from agflow.calibration.loss import per_image_loss
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import FixedParameters, Predictions, join_predictions
from agflow.cascade.prior_quality import PriorQuality, rank_priors
from agflow.cascade.priors import MAX_PROBABILITY
from agflow.data.batches import Batch, image_batches, labelled_batches
from agflow.diagnostics.units import PerLayer, Range, diagnose
from agflow.errors import InvalidValueError
from agflow.models import ChannelGroup, adapter_for, logits_of, model_logits

AGF_PRIOR = "agf"
UTILITY_GROUPS = tuple(default("calibrate", "groups"))


def image_utilities(
    model: nn.Module, loader: Iterable, *, groups: Sequence[str] = UTILITY_GROUPS
) -> np.ndarray:
    """Compute the AGF utility of every image: Σ_layers Σ_rows Σ_c |Y_c · ∂L/∂Y_c|.

    L is the cross entropy of the class of the largest logit, because there is no label at
    inference; Y and the layers are those of :func:`agflow.calibrate`. The weights are frozen: the
    backward pass makes no weight gradients.

    Parameters
    ----------
    loader : batches of images [B, C, H, W], with or without labels
    groups : of the layers that count, see :func:`agflow.calibrate`

    Returns
    -------
    float64 [N]

    Raises
    ------
    EmptyError
        The loader gave no batch.
    InvalidValueError
        The model has no layer of these groups.
    UnsupportedModelError
        No adapter handles the model.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:test", preprocessing=preprocessing, limit=64)
    >>> loader = DataLoader(images, batch_size=32)
    >>> utilities = agflow.research.image_utilities(model, loader)
    >>> utilities.shape, bool((utilities > 0).all())
    ((64,), True)
    """
    batches = image_batches(loader, "image utilities")
    return _utilities(model, batches, groups)[0]


@with_gradients
def _utilities(
    model: nn.Module, batches: Iterable[torch.Tensor], groups: Sequence[str]
) -> tuple[np.ndarray, torch.Tensor]:
    """Return the utilities [N] and logits [N, K] of all images."""
    model = without_inference_tensors(model)
    layers = _layers(model, groups)
    sums_B: list[torch.Tensor] = []

    def add(_: int, images: int, y_RC: torch.Tensor, g_RC: torch.Tensor) -> None:
        sums_B.append((y_RC * g_RC).abs().reshape(images, -1).sum(1, dtype=torch.float64))

    found = []
    with capture(model, layers, add):
        for images in batches:
            logits_BK = _backward(model, images)
            found.append((torch.stack(sums_B).sum(0).cpu(), logits_BK.float().cpu()))
            sums_B.clear()
    utilities_N, logits_NK = (torch.cat(parts) for parts in zip(*found, strict=True))
    return utilities_N.numpy(), logits_NK


@with_gradients
def utility_macs(model: nn.Module, *, groups: Sequence[str] = UTILITY_GROUPS) -> int:
    """Count the MACs of the backward pass that the utility of one image takes.

    They are about as many as those of the forward pass. Counted by torch's ``FlopCounterMode``
    while the pass runs, with plain attention, whose backward pass recomputes nothing. Weight
    gradients would take as many again, three forward passes in all.

    Raises
    ------
    InvalidValueError, UnsupportedModelError
        As :func:`image_utilities`.

    Examples
    --------
    >>> import agflow
    >>> from agflow.research.bottleneck import utility_macs
    >>> model, _, _ = agflow.load_model("example")
    >>> round(utility_macs(model) / agflow.count_macs(model), 2)
    1.0
    """
    parameter = first_parameter(model)
    image = torch.zeros(
        1, *adapter_for(model).input_size(model), device=parameter.device, dtype=parameter.dtype
    )
    counter = FlopCounterMode(display=False)
    with (
        capture(model, _layers(model, groups), lambda *_: None),
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):
        logits_BK = logits_of(model(image))
        forward = counter.get_total_flops()
        per_image_loss(logits_BK, logits_BK.argmax(1)).backward()
    return (counter.get_total_flops() - forward) // 2


def with_utilities(
    predictions: Predictions,
    light: nn.Module,
    loader: Iterable,
    *,
    groups: Sequence[str] = UTILITY_GROUPS,
) -> Predictions:
    """Add the prior ``agf`` to predictions: minus the utility of each image.

    A small utility stands for a confident prediction (:func:`image_utilities`). A cascade that
    routes by this prior computes the backward pass, too: :func:`utility_macs`, kept in the metadata
    ``agflow.utility_cost``.

    Parameters
    ----------
    predictions : of ``light`` on the images of ``loader``, in its order
    light : the light expert
    loader : batches of images [B, C, H, W], with or without labels
    groups : of the layers that count, see :func:`agflow.calibrate`

    Raises
    ------
    InvalidValueError
        The loader has more or fewer images than the predictions; or as :func:`image_utilities`.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:test", preprocessing=preprocessing, limit=64)
    >>> loader = DataLoader(images, batch_size=32)
    >>> predictions = agflow.predict(model, model, loader)
    >>> predictions = agflow.research.with_utilities(predictions, model, loader)
    >>> predictions.prior("agf").shape
    (64,)
    """
    batches = image_batches(loader, "image utilities")
    utilities_N, logits_NK = _utilities(light, batches, groups)
    _check_same_images(predictions, logits_NK, torch.finfo(first_parameter(light).dtype).eps)
    return _with_prior(predictions, utilities_N, utility_macs(light, groups=groups))


def _check_same_images(predictions: Predictions, logits_NK: torch.Tensor, eps: float) -> None:
    """Check by the light expert's answers that logits are of the images of the predictions.

    Parameters
    ----------
    eps : of the numbers that it computes with: answers in other batches differ by some of these
    """
    if len(logits_NK) != len(predictions):
        raise InvalidValueError(
            f"the loader has {len(logits_NK)} images, the predictions {len(predictions)}, "
            "expected the same ones: pass the loader that they were made with"
        )
    found_N = logits_NK.softmax(1).amax(1).numpy()
    differs = ~np.isclose(found_N, predictions.prior(MAX_PROBABILITY), rtol=min(0.05, 1000 * eps))
    if differs.any():
        raise InvalidValueError(
            f"the light expert answers image {int(differs.argmax())} of the loader otherwise than "
            "the predictions say, expected the same images in the same order: pass the loader and "
            "the light expert that they were made with, and shuffle=False"
        )


def _with_prior(predictions: Predictions, utilities_N: np.ndarray, macs: int) -> Predictions:
    batch = predictions.batch.append_column(
        f"prior_{AGF_PRIOR}", pa.array((-utilities_N).astype(np.float32))
    )
    return Predictions(
        batch.replace_schema_metadata(
            {**predictions.batch.schema.metadata, "agflow.utility_cost": str(macs)}
        )
    )


@dataclass(frozen=True)
class TracePoint:
    """The utility signal at one moment of a training.

    Attributes
    ----------
    epoch : epochs that were over
    units : spread of the utilities U_c of all units, and inside every layer
        (:func:`agflow.diagnostics.diagnose`, criterion agf)
    images : spread of the utilities of single images, see :func:`image_utilities`
    accuracy : top-1 on those images, in [0, 1]
    priors : how well the zero-cost priors and ``agf`` separate correct predictions from errors on
        those images
    """

    epoch: int
    units: PerLayer[Range] = field(repr=False)
    images: Range
    accuracy: float
    priors: tuple[PriorQuality, ...]

    @property
    def layer_median(self) -> float | None:
        """Max over median inside a layer, the median of the layers.

        Raw utilities fall with depth, which counts as range in ``units.overall`` and not here.
        """
        ratios = [found.max_over_median for found in self.units.layers.values()]
        known = [ratio for ratio in ratios if ratio is not None]
        return float(np.median(known)) if len(known) == len(ratios) else None


@dataclass
class UtilityTrace:
    """Records the utility signal while a model is trained, by any training loop.

    ``watching`` returns the training's loader with a measurement before each pass over it; call
    ``record`` once more at the end. A measurement leaves weights, random generators, modes,
    gradients and flags as they were.

    Parameters
    ----------
    model : the one that is trained
    calibration : sized iterable of (images, labels) for the utilities of units; all of its batches
        are used at each measurement
    test_loader : batches of (images, labels) for the utilities of images; not used for training

    Attributes
    ----------
    points : list of TracePoint, in order

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:test", preprocessing=preprocessing, limit=64)
    >>> loader = DataLoader(images, batch_size=32)
    >>> trace = agflow.research.UtilityTrace(model, loader, loader)
    >>> history = agflow.finetune(model, trace.watching(loader), epochs=1)
    >>> point = trace.record()
    >>> [point.epoch for point in trace.points]
    [0, 1]
    """

    model: nn.Module = field(repr=False)
    calibration: SizedLoader = field(repr=False)
    test_loader: Iterable = field(repr=False)
    points: list[TracePoint] = field(default_factory=list)

    def record(self) -> TracePoint:
        """Measure now, and append the result to ``points``.

        Raises
        ------
        EmptyError
            A loader gave no batch.
        NonFiniteError
            The model gave NaN or infinity.
        """
        device = device_of(self.model)
        # A loader draws a seed even where it shuffles nothing.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            statistics = calibrate(
                self.model,
                self.calibration,
                batches=len(self.calibration),
                groups=UTILITY_GROUPS,
            )
            labels: list[torch.Tensor] = []
            images = _images_of(labelled_batches(self.test_loader, "image utilities"), labels)
            utilities_N, logits_NK = _utilities(self.model, images, UTILITY_GROUPS)
        costs = CascadeCosts.of(self.model, self.model)
        predictions = _with_prior(
            join_predictions(
                logits_NK, logits_NK, torch.cat(labels), costs, fixed=FixedParameters(1.0, 0.0)
            ),
            utilities_N,
            0,
        )
        units = diagnose(statistics, criteria=[AGF_PRIOR]).ranges[AGF_PRIOR]
        self.points.append(
            TracePoint(
                len(self.points),
                units,
                _range(utilities_N),
                predictions.light_accuracy,
                rank_priors(predictions),
            )
        )
        return self.points[-1]

    def watching(self, loader: Iterable) -> Iterable:
        """Return a loader of the same batches that measures before the first one of every pass."""
        return CallbackLoader(loader, begin=self.record)


def _layers(model: nn.Module, groups: Sequence[str]) -> list[ChannelGroup]:
    groups = names_of(groups, "groups")
    layers = [layer for layer in adapter_for(model).layers(model) if layer.kind in groups]
    if not layers:
        raise InvalidValueError(
            f"groups is {list(groups)}, of which the model has no layer: "
            f"take some of {', '.join(UTILITY_GROUPS)}"
        )
    return layers


def _images_of(batches: Iterable[Batch], labels: list[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The images of the batches; their labels are appended to ``labels`` meanwhile."""
    for batch in batches:
        labels.append(batch.labels)
        yield batch.images


def _backward(model: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Run forward, and backward from the loss of the predicted classes; returns the logits."""
    logits_BK = model_logits(model, images_BCHW)
    per_image_loss(logits_BK, logits_BK.argmax(1)).backward()
    return logits_BK.detach()


def _range(values_N: np.ndarray) -> Range:
    return Range(
        **json.loads(
            arrow.call(core().dynamic_range, arrow.matrix(values_N.reshape(-1, 1), "utilities"))
        )
    )
