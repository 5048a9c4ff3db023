"""Predictions of both experts, the calibrated threshold, and the honest cost: decided by the Go core."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from agflow import arrow
from agflow._core.loader import core
from agflow.errors import CorruptFileError, FileError
from agflow.evaluation import logits
from agflow.models import count_macs
from agflow.tables import Table

ROUTER_FORMAT = 1
PRIOR = "max_probability"


class Predictions(Table):
    """What both experts say about the same images.

    Columns: label int64, light_prediction int64, light_prior float32 (maximum softmax probability),
    heavy_prediction int64. Metadata: the MACs of both experts and of what they share.
    """

    kind = "predictions"

    @property
    def light_accuracy(self) -> float:
        return float((self.columns["light_prediction"] == self.columns["label"]).mean())

    @property
    def heavy_accuracy(self) -> float:
        return float((self.columns["heavy_prediction"] == self.columns["label"]).mean())


class Curve(Table):
    """Accuracy and cost over the thresholds.

    Columns: threshold, escalated, escalation, accuracy, charged, uncharged, random_accuracy. ``charged`` and
    ``uncharged`` are MACs per image as ratios of the heavy expert; ``uncharged`` leaves the light pass of escalated
    images unpaid and is there for comparison with papers that report it.
    """

    kind = "curve"


@dataclass(frozen=True)
class Costs:
    """MACs per image of the light expert, the heavy expert, and what an escalated image need not pay again."""

    light: int
    heavy: int
    shared: int = 0

    @classmethod
    def of(cls, light: nn.Module, heavy: nn.Module) -> Costs:
        return cls(count_macs(light), count_macs(heavy))


@dataclass(frozen=True)
class Ledger:
    """What a cascade has cost so far, per image, as ratios of the heavy expert.

    charged = (c_light + escalation * (c_heavy - c_shared)) / c_heavy; uncharged leaves out the light pass of escalated
    images. ``break_even`` is the escalation at which charged = 1; at or above it the verdict is "loss".
    """

    samples: int
    escalated: int
    escalation: float
    light_macs: int
    heavy_macs: int
    shared_macs: int
    charged: float
    uncharged: float
    break_even: float
    verdict: str

    @classmethod
    def of(cls, costs: Costs, samples: int, escalated: int) -> Ledger:
        request = {"light_macs": costs.light, "heavy_macs": costs.heavy, "shared_macs": costs.shared,
                   "samples": samples, "escalated": escalated}
        return cls(**json.loads(core().ledger(json.dumps(request))))

    def __str__(self) -> str:
        return (f"{self.samples} images, {100 * self.escalation:.1f} % escalated: {self.charged:.3f}x charged "
                f"({self.uncharged:.3f}x uncharged), break-even at {100 * self.break_even:.1f} %: {self.verdict}")


@dataclass(frozen=True)
class Router:
    """A calibrated threshold: an image escalates when its light prior is below ``threshold``.

    ``verdict`` is PASS when P(accuracy(cascade) >= accuracy(heavy) - tolerance) >= confidence was shown on held-out
    images, FAIL when a loss was seen, INSUFFICIENT DATA when ``needed_samples`` images are wanted. Unless it is PASS
    every image escalates. The other fields describe the held-out images at this threshold.
    """

    threshold: float
    verdict: str
    samples: int
    needed_samples: int
    escalation: float
    accuracy_light: float
    accuracy_heavy: float
    accuracy_cascade: float
    bound: float
    tolerance: float
    confidence: float

    def save(self, path: str | os.PathLike) -> None:
        """Write the router as JSON, whole or not at all.

        Raises
        ------
        FileError
            The folder is missing or not writable, or the disk is full.
        """
        path = pathlib.Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(json.dumps({"format": ROUTER_FORMAT, "prior": PRIOR, **asdict(self)}, indent=2) + "\n")
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise FileError(f"router {path} was not written: {error.strerror}: choose a writable folder with space") from error

    @classmethod
    def load(cls, path: str | os.PathLike) -> Router:
        """Read a router written by :meth:`save` or by ``agflow route``.

        Raises
        ------
        FileError
            The file is missing or not readable.
        CorruptFileError
            It is not a router file of this format.
        """
        try:
            content = json.loads(pathlib.Path(path).read_text())
            if content["format"] != ROUTER_FORMAT or content["prior"] != PRIOR:
                raise ValueError(f"format {content['format']}, prior {content['prior']}")
            return cls(**{field.name: content[field.name] for field in fields(cls)})
        except OSError as error:
            raise FileError(f"router {path} cannot be read: {error.strerror}: check the path") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptFileError(f"{path} is not a router file of format {ROUTER_FORMAT} ({error}): write it again with "
                                   "calibrate_router(...).save or `agflow route`") from error


def priors(logits_NK: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Answer and maximum softmax probability of every row.

    Returns
    -------
    prediction : int64 [N]
    prior : float32 [N], softmax in float64

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    """
    table = arrow.call_for_batch(core().priors, arrow.matrix(logits_NK))
    return table.column("prediction").to_numpy(), table.column("prior").to_numpy()


def escalations(logits_BK: torch.Tensor, threshold: float) -> torch.Tensor:
    """Indices of the rows whose maximum softmax probability is below ``threshold``, ascending int64, on the logits' device.

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    """
    onto_cpu = logits_BK.float().contiguous().cpu()
    indices = arrow.call_for_array(core().route, threshold, arrow.matrix(onto_cpu))
    return torch.from_numpy(indices.to_numpy(zero_copy_only=False).copy()).to(logits_BK.device)


def join_predictions(light_NK: torch.Tensor, heavy_NK: torch.Tensor, labels_N: torch.Tensor, costs: Costs) -> Predictions:
    """Predictions table from the logits of both experts on the same images."""
    light_prediction, light_prior = priors(light_NK)
    heavy_prediction, _ = priors(heavy_NK)
    metadata = {"agflow.kind": Predictions.kind, "agflow.prior": PRIOR, "agflow.light_macs": str(costs.light),
                "agflow.heavy_macs": str(costs.heavy), "agflow.shared_macs": str(costs.shared)}
    columns = {"label": labels_N.numpy().astype(np.int64), "light_prediction": light_prediction, "light_prior": light_prior,
               "heavy_prediction": heavy_prediction}
    schema = pa.schema([(name, pa.from_numpy_dtype(column.dtype)) for name, column in columns.items()], metadata)
    return Predictions(pa.record_batch([pa.array(column) for column in columns.values()], schema=schema))


def predict(light: nn.Module, heavy: nn.Module, loader: Iterable, *, progress: bool = True) -> Predictions:
    """Run both experts over ``loader`` (its order must not change between two passes).

    Raises
    ------
    EmptyError
        The loader gave no batch.
    NonFiniteError
        An expert gave a logit that is NaN or infinite.
    """
    light_NK, labels = logits(light, loader, description="light expert", progress=progress)
    heavy_NK, _ = logits(heavy, loader, description="heavy expert", progress=progress)
    return join_predictions(light_NK, heavy_NK, labels, Costs.of(light, heavy))


def threshold_for(predictions: Predictions, *, tolerance: float = 0.005, confidence: float = 0.95) -> Router:
    """Calibrate the threshold on held-out predictions (see :func:`calibrate_router`)."""
    request = json.dumps({"tolerance": tolerance, "confidence": confidence})
    return Router(**json.loads(arrow.call(core().calibrate_threshold, request, predictions.batch)))


def calibrate_router(light: nn.Module, heavy: nn.Module, held_out: Iterable, *, tolerance: float = 0.005,
                     confidence: float = 0.95, progress: bool = True) -> Router:
    """Find the threshold that escalates least while the cascade keeps up with the heavy expert.

    P(accuracy(cascade) >= accuracy(heavy) - tolerance) >= confidence over the draw of ``held_out``: thresholds are
    tested from "all escalate" downwards until the first failure (fixed-sequence testing), each by exact
    Clopper-Pearson bounds on the paired losses and gains.

    Parameters
    ----------
    held_out : loader of images that trained, tuned or repaired neither expert
    tolerance : accepted loss of accuracy, as a share of the images
    confidence : in (0, 1)

    Raises
    ------
    EmptyError
        The loader gave no batch.
    InvalidValueError
        tolerance or confidence out of range.
    """
    return threshold_for(predict(light, heavy, held_out, progress=progress), tolerance=tolerance, confidence=confidence)


def curve(predictions: Predictions, *, points: int = 200) -> Curve:
    """The exact accuracy and cost at every threshold, thinned to at most ``points`` rows."""
    return Curve(arrow.call_for_batch(core().curve, json.dumps({"points": points}), predictions.batch))
