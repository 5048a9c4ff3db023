"""Why AGF prunes well and routes badly: its signal along a training, and AGF as a prior of single images.

arXiv 2603.12354 says that the gradient signal of converged models is compressed, unfit to route by, and so to "build the
road with AGF, walk it with confidence". This module measures both halves of that sentence.

Shape suffixes: B images of a batch, N images, R = B * T rows, C channels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from agflow._core import arrow
from agflow._core.loader import core
from agflow._utils.loaders import CallbackLoader, batches_of
from agflow.calibration.calibration import calibrate
from agflow.calibration.hooks import capture
from agflow.calibration.loss import per_image_loss
from agflow.cascade.ledger import Costs
from agflow.cascade.predictions import Predictions, join_predictions
from agflow.cascade.priors import PriorQuality, rank
from agflow.diagnostics.units import PerLayer, Range, diagnose
from agflow.errors import InvalidValueError
from agflow.models import PrunableLayer, adapter_for, logits_of

PRIOR = "agf"
GROUPS = ("mlp", "heads")


def image_utilities(
    model: nn.Module, loader: Iterable, *, groups: Sequence[str] = GROUPS
) -> np.ndarray:
    """AGF utility of every image, with the model's own answer for a label: Σ_layers Σ_rows Σ_c |Y_c · ∂L/∂Y_c|.

    L is the cross entropy against the class of the greatest logit, for at inference there is no other label; Y and the
    layers are those of :func:`agflow.calibrate`. The weights are frozen: the backward pass makes no weight gradient.

    Parameters
    ----------
    loader : batches of (images [B, C, H, W], labels); the labels are not looked at
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
    """
    return torch.cat([utilities_B for utilities_B, _, _ in _passes(model, loader, groups)]).numpy()


def _passes(
    model: nn.Module, loader: Iterable, groups: Sequence[str]
) -> list[tuple[torch.Tensor, torch.Tensor, Any]]:
    """Utilities [B], logits [B, K] and labels of every batch."""
    layers, place = _layers(model, groups), next(model.parameters())
    sums_B: list[torch.Tensor] = []

    def add(_: int, images: int, y_RC: torch.Tensor, g_RC: torch.Tensor) -> None:
        sums_B.append((y_RC * g_RC).abs().reshape(images, -1).sum(1, dtype=torch.float64))

    found = []
    with capture(model, layers, add):
        for images, labels in batches_of(loader, "utility of images"):
            logits_BK = _backward(model, images.to(place))
            found.append((torch.stack(sums_B).sum(0).cpu(), logits_BK.float().cpu(), labels))
            sums_B.clear()
    return found


def utility_macs(model: nn.Module, *, groups: Sequence[str] = GROUPS) -> int:
    """MACs of the backward pass that the utility of one image takes beside the forward pass: about as many again.

    Counted by torch's ``FlopCounterMode`` while the pass runs, with plain attention, whose backward recomputes nothing.
    With weight gradients it would be twice as many, three forward passes in all.

    Raises
    ------
    InvalidValueError, UnsupportedModelError
        As :func:`image_utilities`.
    """
    place = next(model.parameters())
    image = torch.zeros(
        1, *adapter_for(model).input_size(model), device=place.device, dtype=place.dtype
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
    groups: Sequence[str] = GROUPS,
) -> Predictions:
    """The predictions with one more prior, ``agf``: minus the utility of each image (:func:`image_utilities`), for what
    moves less is surer. A cascade that routes by it pays for the backward pass too: :func:`utility_macs`, in the metadata
    ``agflow.utility_macs``.

    Parameters
    ----------
    predictions : of ``light`` on the images of ``loader``, in its order

    Raises
    ------
    InvalidValueError
        The loader has more or fewer images than the predictions; or as :func:`image_utilities`.
    """
    utilities_N = image_utilities(light, loader, groups=groups)
    if len(utilities_N) != len(predictions):
        raise InvalidValueError(
            f"the loader has {len(utilities_N)} images, the predictions {len(predictions)}, expected the same ones: "
            "pass the loader that they were made with"
        )
    return _with_prior(predictions, utilities_N, utility_macs(light, groups=groups))


def _with_prior(predictions: Predictions, utilities_N: np.ndarray, macs: int) -> Predictions:
    batch = predictions.batch.append_column(
        f"prior_{PRIOR}", pa.array((-utilities_N).astype(np.float32))
    )
    return Predictions(
        batch.replace_schema_metadata(
            {**predictions.batch.schema.metadata, "agflow.utility_macs": str(macs)}
        )
    )


@dataclass(frozen=True)
class TracePoint:
    """The utility signal at one moment of a training.

    Attributes
    ----------
    epoch : epochs that were over
    units : spread of the utilities U_c of all units, and inside every layer (:func:`agflow.diagnostics.diagnose`, criterion agf)
    images : spread of the utilities of single images, see :func:`image_utilities`
    accuracy : top-1 on those images
    priors : how well the zero-cost priors and ``agf`` tell the errors on those images
    """

    epoch: int
    units: PerLayer[Range]
    images: Range
    accuracy: float
    priors: tuple[PriorQuality, ...]

    @property
    def layer_median(self) -> float | None:
        """Max over median inside a layer, the median of the layers. Raw utilities fall with depth, which ``units.overall``
        counts as range and this does not."""
        ratios = [found.max_over_median for found in self.units.layers.values()]
        return None if None in ratios else float(np.median(ratios))


@dataclass
class UtilityTrace:
    """Watches the utility signal while a model is trained, by whatever loop.

    ``watching`` gives the training's loader with a measurement before each pass over it; call ``record`` once more at the
    end. A measurement leaves weights, random generators, modes, gradients and flags as they were.

    >>> trace = UtilityTrace(model, calibration, judging)           # doctest: +SKIP
    >>> agflow.finetune(model, trace.watching(loader), epochs=5)    # doctest: +SKIP
    >>> trace.record()                                              # doctest: +SKIP

    Parameters
    ----------
    model : the one that is trained
    calibration : sized iterable of (images, labels) for the utilities of units, all of its batches at each measurement
    judging : batches of (images, labels) for those of images, that train nothing

    Attributes
    ----------
    points : list of TracePoint, in order
    """

    model: nn.Module
    calibration: Iterable
    judging: Iterable
    points: list[TracePoint] = field(default_factory=list)

    def record(self) -> TracePoint:
        """Measure now.

        Raises
        ------
        EmptyError
            A loader gave no batch.
        NonFiniteError
            The model gave NaN or infinity.
        """
        device = next(self.model.parameters()).device
        with torch.random.fork_rng(
            [device] if device.type == "cuda" else []
        ):  # a loader draws its seed even where it shuffles nothing
            statistics = calibrate(
                self.model,
                self.calibration,
                batches=len(self.calibration),
                groups=GROUPS,
            )
            passes = _passes(self.model, self.judging, GROUPS)
        utilities_N, logits_NK, labels_N = (torch.cat(parts) for parts in zip(*passes, strict=True))
        utilities_N = utilities_N.numpy()
        costs = Costs.of(self.model, self.model)
        predictions = _with_prior(
            join_predictions(
                logits_NK, logits_NK, labels_N, costs, temperature=1.0, light_weight=0.0
            ),
            utilities_N,
            0,
        )
        units = diagnose(statistics, criteria=[PRIOR]).ranges[PRIOR]
        self.points.append(
            TracePoint(
                len(self.points),
                units,
                _range(utilities_N),
                predictions.light_accuracy,
                rank(predictions),
            )
        )
        return self.points[-1]

    def watching(self, loader: Iterable) -> Iterable:
        """The same batches, with a measurement before the first one of every pass."""
        return CallbackLoader(loader, begin=self.record)


def _layers(model: nn.Module, groups: Sequence[str]) -> list[PrunableLayer]:
    layers = [layer for layer in adapter_for(model).layers(model) if layer.group in groups]
    if not layers:
        raise InvalidValueError(
            f"groups is {list(groups)}, of which the model has no layer: take some of {', '.join(GROUPS)}"
        )
    return layers


def _backward(model: nn.Module, images_BCHW: torch.Tensor) -> torch.Tensor:
    """Forward, and backward from the loss of the model's own answers; returns the logits."""
    logits_BK = logits_of(model(images_BCHW))
    per_image_loss(logits_BK, logits_BK.argmax(1)).backward()
    return logits_BK.detach()


def _range(values_N: np.ndarray) -> Range:
    return Range(
        **json.loads(
            arrow.call(core().dynamic_range, arrow.matrix(values_N.reshape(-1, 1), "utilities"))
        )
    )
