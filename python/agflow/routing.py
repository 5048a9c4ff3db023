"""Predictions of both experts, the calibrated threshold, and the honest cost: decided by the Go core."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from agflow import arrow
from agflow._core.loader import core
from agflow.errors import EmptyError, UnsupportedModelError
from agflow.evaluation import logits
from agflow.fingerprints import ImageSketch
from agflow.models import count_macs, prefix_macs
from agflow.tables import Table

PRIOR = "max_probability"
TOLERANCE = 0.005
LOGIT_PRIORS = (PRIOR, "margin", "entropy", "energy")
SCALED = "_scaled"
AGREEMENT = "agreement"
HEAVY, BOTH = "heavy", "both"


class Predictions(Table):
    """What both experts say about the same images.

    Columns: label int64, light_prediction int64, light_prior float32 (maximum softmax probability),
    heavy_prediction int64; then, for every other prior, a float32 column ``prior_NAME``, higher where the light expert
    is surer: margin (the two greatest probabilities apart), entropy (sum of p log p, which is minus the entropy),
    energy (log-sum-exp of the logits), each also with ``_scaled`` behind it, from logits over ``temperature``;
    l1_norm of the features, agreement of a second look (see :func:`agreement`) and others, where they were recorded.
    both_prediction int64, where it was recorded, is the class by the answers of both experts, combined with
    ``light_weight`` (see :func:`combine`). Metadata: the MACs of both experts, of what they share, and of a second look.
    """

    kind = "predictions"

    @property
    def light_accuracy(self) -> float:
        return float((self.columns["light_prediction"] == self.columns["label"]).mean())

    @property
    def heavy_accuracy(self) -> float:
        return float((self.columns["heavy_prediction"] == self.columns["label"]).mean())

    @property
    def temperature(self) -> float:
        """Of the logits behind the priors named ``*_scaled``."""
        return float(self.metadata.get("agflow.temperature", 1.0))

    @property
    def light_weight(self) -> float:
        """The light expert's in ``both_prediction``; 0 where there is none."""
        return float(self.metadata.get("agflow.light_weight", 0.0))


class Curve(Table):
    """Accuracy and cost over the thresholds of a prior.

    Columns: threshold, escalated, and escalation, accuracy, charged, uncharged, random_accuracy, each with the ends of
    its interval of 95 % confidence, ``NAME_low`` and ``NAME_high`` (Wilson's, for one threshold, not for all at once).
    ``charged`` and ``uncharged`` are MACs per image as ratios of the heavy expert; ``uncharged`` leaves the light pass of
    escalated images unpaid and is there for comparison with papers that report it. What the prior itself costs is charged
    to the light expert. The answers to escalated images are those of the heavy expert, or of both where metadata
    agflow.answers says so.
    """

    kind = "curve"


@dataclass(frozen=True)
class Costs:
    """MACs per image of the light expert, the heavy expert, what an escalated image need not pay again, and of the second
    look behind the prior agreement, which only a cascade that routes by this prior pays."""

    light: int
    heavy: int
    shared: int = 0
    look: int = 0

    @classmethod
    def of(cls, light: nn.Module, heavy: nn.Module, shared_blocks: int = 0) -> Costs:
        """Of two experts whose embeddings and first ``shared_blocks`` blocks are computed once for both; 0 shares nothing."""
        return cls(count_macs(light), count_macs(heavy), prefix_macs(heavy, shared_blocks) if shared_blocks else 0)


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
class PriorQuality:
    """How well a prior tells the light expert's errors: AUROC (ties count half) with its interval of 95 % confidence."""

    prior: str
    auroc: float
    low: float
    high: float
    errors: int


@dataclass(frozen=True)
class Router:
    """A calibrated threshold: an image escalates when its ``prior`` is below ``threshold``.

    ``answers`` says what answers it then: "heavy", or "both" experts, combined with ``light_weight`` (:func:`combine`).

    ``verdict`` is PASS when, with probability ``confidence`` over the draw of the held-out images, the ``target`` keeps
    its ``limit``:

    ========== =========================================
    accuracy   accuracy(cascade) >= accuracy(heavy) - limit
    charged    charged cost <= limit
    escalation escalation <= limit
    ========== =========================================

    ``bound`` is what was shown of it. FAIL: the rates seen break it; INSUFFICIENT DATA: about ``needed_samples`` images
    would do. Unless the verdict is PASS every image escalates (with a limit of cost or escalation: none) and the heavy
    expert alone answers. The other fields describe the held-out images at this threshold; ``point`` does so with
    intervals, ``ledger`` in MACs, and ``priors`` rates every prior there was.
    """

    prior: str
    temperature: float
    answers: str
    light_weight: float
    threshold: float
    verdict: str
    target: str
    limit: float
    confidence: float
    bound: float
    samples: int
    needed_samples: int
    escalation: float
    accuracy_light: float
    accuracy_heavy: float
    accuracy_cascade: float
    point: dict[str, float | list[float]] = field(repr=False)
    ledger: Ledger = field(repr=False)
    priors: tuple[PriorQuality, ...] = field(repr=False)
    format: int = field(default=3, repr=False)

    @classmethod
    def _of(cls, text: str) -> Router:
        content = json.loads(text)
        content["ledger"] = Ledger(**content["ledger"])
        content["priors"] = tuple(PriorQuality(**quality) for quality in content["priors"] or ())
        return cls(**content)

    @property
    def tolerance(self) -> float:
        """The accuracy that may be lost; 1 where the limit is one of cost or escalation."""
        return self.limit if self.target == "accuracy" else 1.0

    @property
    def rule(self) -> str:
        """What escalates, in words."""
        if abs(self.threshold) >= 2.0**128:  # routing.EscalateAll and EscalateNone
            return "every image escalates" if self.threshold > 0 else "no image escalates"
        return f"an image escalates when its {self.prior} is below {self.threshold:.6g}"

    def save(self, path: str | os.PathLike) -> None:
        """Write the router as JSON, whole or not at all: the file that ``agflow route`` writes.

        Raises
        ------
        FileError
            The folder is missing or not writable, or the disk is full.
        """
        core().write_router(os.fspath(path), json.dumps(asdict(self)))

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
        return cls._of(core().read_router(os.fspath(path)))


def priors(logits_NK: torch.Tensor, temperature: float = 1.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Answer and priors of every row, from the logits over a temperature.

    Returns
    -------
    prediction : int64 [N]
    priors : float32 [N] each, by the names of ``LOGIT_PRIORS``, made in float64

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    InvalidValueError
        The temperature is not above 0.
    """
    table = arrow.call_for_batch(core().priors, temperature, arrow.matrix(logits_NK))
    return table.column("prediction").to_numpy(), {name: table.column(name).to_numpy() for name in LOGIT_PRIORS}


def fit_temperature(logits_NK: torch.Tensor, labels_N: torch.Tensor) -> float | None:
    """The temperature of greatest likelihood, on the quarter of the rows that calibrates no threshold.

    None when no row is left for it, or a label is no class of the logits.

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    """
    if not _are_classes(labels_N, logits_NK):
        return None
    try:
        return json.loads(arrow.call(core().fit_temperature, arrow.matrix(logits_NK), _label_batch(labels_N)))["temperature"]
    except EmptyError:
        return None


def combine(light_EK: torch.Tensor, heavy_EK: torch.Tensor, weight: float) -> torch.Tensor:
    """Answers to images that both experts have seen: ``w log softmax(light) + (1 - w) log softmax(heavy)``.

    A product of experts (Hinton 2002, Neural Computation 14, 1771-1800), made in float64: log-probabilities up to a
    constant of each row.

    Parameters
    ----------
    light_EK, heavy_EK : logits of both experts, float32, float64, float16 or bfloat16
    weight : w, the light expert's, from 0 (the heavy expert's answer alone) to 1

    Returns
    -------
    float32 [E, K] on the device of ``heavy_EK``

    Raises
    ------
    ShapeError
        The two are of other images or classes.
    NonFiniteError
        A logit is NaN or infinite.
    InvalidValueError
        The weight is not in [0, 1].
    """
    combined = arrow.call_for_array(core().combine, float(weight), _onto_cpu(light_EK), _onto_cpu(heavy_EK))
    return torch.from_numpy(combined.to_numpy().copy()).view(heavy_EK.shape).to(heavy_EK.device)


def agreement(first_NK: torch.Tensor, second_NK: torch.Tensor) -> np.ndarray:
    """The prior of a second look, float32 [N] in [0, 1]: the sum over the classes of the lesser of the two probabilities,
    which is 1 less their total variation distance, from the logits of both looks.

    Raises
    ------
    ShapeError
        The two are of other images or classes.
    NonFiniteError
        A logit is NaN or infinite.
    """
    return arrow.call_for_array(core().agreement, _onto_cpu(first_NK), _onto_cpu(second_NK)).to_numpy()


def fit_light_weight(light_NK: torch.Tensor, heavy_NK: torch.Tensor, labels_N: torch.Tensor) -> float | None:
    """The weight of :func:`combine` of greatest likelihood, on the quarter of the rows that calibrates no threshold.

    None when no row is left for it, the experts have other classes, or a label is no class of theirs.

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    """
    if light_NK.shape != heavy_NK.shape or not _are_classes(labels_N, light_NK):
        return None
    try:
        found = arrow.call(core().fit_light_weight, arrow.matrix(light_NK), arrow.matrix(heavy_NK), _label_batch(labels_N))
    except EmptyError:
        return None
    return float(json.loads(found)["light_weight"])


def _onto_cpu(logits_BK: torch.Tensor) -> arrow.Matrix:
    return arrow.matrix(logits_BK.contiguous().cpu())


def _are_classes(labels_N: torch.Tensor, logits_NK: torch.Tensor) -> bool:
    return len(labels_N) > 0 and labels_N.min() >= 0 and labels_N.max() < logits_NK.shape[1]


def _label_batch(labels_N: torch.Tensor) -> pa.RecordBatch:
    return pa.record_batch({"label": labels_N.numpy().astype(np.int64)})


def escalations(logits_BK: torch.Tensor, threshold: float, *, prior: str = PRIOR, temperature: float = 1.0) -> torch.Tensor:
    """Indices of the rows whose prior is below ``threshold``, ascending int64, on the logits' device.

    Raises
    ------
    NonFiniteError
        A logit is NaN or infinite.
    InvalidValueError
        Logits do not give this prior.
    """
    onto_cpu = logits_BK.float().contiguous().cpu()
    indices = arrow.call_for_array(core().route, prior, float(temperature), float(threshold), arrow.matrix(onto_cpu))
    return torch.from_numpy(indices.to_numpy(zero_copy_only=False).copy()).to(logits_BK.device)


def join_predictions(light_NK: torch.Tensor, heavy_NK: torch.Tensor, labels_N: torch.Tensor, costs: Costs, *,
                     temperature: float | None = None, light_weight: float | None = None, features_NC: torch.Tensor | None = None,
                     look_NK: torch.Tensor | None = None, recorded: Mapping[str, np.ndarray] | None = None, images: str = "",
                     tuning: str = "") -> Predictions:
    """Predictions table from the logits of both experts on the same images.

    Parameters
    ----------
    temperature : of the scaled priors; by default fitted by :func:`fit_temperature`. Pass the router's for images that
        judge it.
    light_weight : of both_prediction; by default fitted by :func:`fit_light_weight`. Pass the router's for images that judge
        it. Experts of other classes have no both_prediction.
    features_NC : the light expert's last features, for the prior l1_norm
    look_NK : logits of a second look, for the prior agreement, which is charged ``costs.look``
    recorded : further priors by name, float32 [N], higher where the light expert is surer
    images, tuning : sketches (:func:`agflow.sketch_images`) of these images, and of those that tuned the experts
    """
    light_prediction, plain = priors(light_NK)
    heavy_prediction, _ = priors(heavy_NK)
    light_weight = fit_light_weight(light_NK, heavy_NK, labels_N) if light_weight is None else light_weight
    both = {}
    if light_weight is not None and light_NK.shape == heavy_NK.shape:
        both["both_prediction"], _ = priors(combine(light_NK, heavy_NK, light_weight))
    temperature = fit_temperature(light_NK, labels_N) if temperature is None else temperature
    more = {name: plain[name] for name in LOGIT_PRIORS[1:]}
    if temperature is not None:
        more |= {name + SCALED: values for name, values in priors(light_NK, temperature)[1].items()}
    if features_NC is not None:
        more["l1_norm"] = arrow.call_for_array(core().feature_norms, arrow.matrix(features_NC)).to_numpy()
    if look_NK is not None:
        more[AGREEMENT] = agreement(light_NK, look_NK)
    more |= recorded or {}
    metadata = {"agflow.kind": Predictions.kind, "agflow.prior": PRIOR, "agflow.light_macs": str(costs.light),
                "agflow.heavy_macs": str(costs.heavy), "agflow.shared_macs": str(costs.shared)}
    if temperature is not None and temperature != 1.0:
        metadata["agflow.temperature"] = repr(temperature)
    if both:
        metadata["agflow.light_weight"] = repr(float(light_weight))
    if look_NK is not None:
        metadata["agflow.look_macs"] = str(costs.look)
    metadata |= {key: sketch for key, sketch in (("agflow.images", images), ("agflow.tuning", tuning)) if sketch}
    columns = {"label": labels_N.numpy().astype(np.int64), "light_prediction": light_prediction, "light_prior": plain[PRIOR],
               "heavy_prediction": heavy_prediction, **both, **{f"prior_{name}": np.asarray(values, np.float32) for name, values in more.items()}}
    schema = pa.schema([(name, pa.from_numpy_dtype(column.dtype)) for name, column in columns.items()], metadata)
    return Predictions(pa.record_batch([pa.array(column) for column in columns.values()], schema=schema))


def predict(light: nn.Module, heavy: nn.Module, loader: Iterable, *, temperature: float | None = None, light_weight: float | None = None,
            features: bool = False, second_look: bool | nn.Module = False, shared_blocks: int = 0, tuning: str = "",
            progress: bool = True) -> Predictions:
    """Run both experts over ``loader`` (its order must not change between passes).

    Parameters
    ----------
    temperature, light_weight : see :func:`join_predictions`
    features : also record the prior l1_norm, of what enters the light expert's last linear layer
    second_look : also record the prior agreement, with what the light expert says of the mirrored image (True), or with what
        another light expert says of the image (that expert). A cascade that routes by it pays for the second pass too.
    shared_blocks : of the cascade to come (:class:`agflow.Cascade`), for its cost: an escalated image does not pay for them again
    tuning : sketch (:func:`agflow.sketch_images`) of the images that tuned an expert; a router is not calibrated on
        predictions that share images with it, as far as a sketch can tell

    Raises
    ------
    EmptyError
        The loader gave no batch.
    NonFiniteError
        An expert gave a logit that is NaN or infinite.
    UnsupportedModelError
        Features were asked for and the light expert has no linear layer.
    """
    with _last_features(light, features) as seen:
        images = ImageSketch()
        light_NK, labels = logits(light, images.watching(loader), description="light expert", progress=progress)
    costs, look_NK = Costs.of(light, heavy, shared_blocks), None
    if second_look is not False:
        looker, looked_at = (light, _Mirrored(loader)) if second_look is True else (second_look, loader)
        look_NK, _ = logits(looker, looked_at, description="second look", progress=progress)
        costs = replace(costs, look=count_macs(looker))
    heavy_NK, _ = logits(heavy, loader, description="heavy expert", progress=progress)
    return join_predictions(light_NK, heavy_NK, labels, costs, temperature=temperature, light_weight=light_weight,
                            features_NC=torch.cat(seen) if features else None, look_NK=look_NK, images=str(images), tuning=tuning)


@dataclass(frozen=True)
class _Mirrored:
    """A loader whose images are mirrored, left for right."""

    loader: Iterable

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return ((x.flip(-1), label) for x, label in self.loader)


@contextmanager
def _last_features(model: nn.Module, wanted: bool) -> Iterator[list[torch.Tensor]]:
    """While open, forward passes append float32 [B, C], the input of the last linear layer, where that is wanted."""
    seen: list[torch.Tensor] = []
    if not wanted:
        yield seen
        return
    heads = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not heads:
        raise UnsupportedModelError(f"{type(model).__name__} has no linear layer, so its last features are unknown: leave features out")
    hook = heads[-1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().float().cpu()))
    try:
        yield seen
    finally:
        hook.remove()


def threshold_for(predictions: Predictions, *, prior: str | None = None, tolerance: float | None = None, charged: float | None = None,
                  escalation: float | None = None, confidence: float = 0.95, answers: str = HEAVY) -> Router:
    """Calibrate the threshold on held-out predictions (see :func:`calibrate_router`)."""
    if tolerance is charged is escalation is None:
        tolerance = TOLERANCE
    request = {"prior": prior or "", "answers": answers, "tolerance": tolerance, "charged": charged, "escalation": escalation,
               "confidence": confidence}
    return Router._of(arrow.call(core().calibrate_router, json.dumps(request), predictions.batch))


def calibrate_router(light: nn.Module, heavy: nn.Module, held_out: Iterable, *, prior: str | None = None, tolerance: float | None = None,
                     charged: float | None = None, escalation: float | None = None, confidence: float = 0.95, answers: str = HEAVY,
                     shared_blocks: int = 0, tuning: str = "", progress: bool = True) -> Router:
    """Find the threshold that escalates least while the cascade keeps up with the heavy expert, or the most accurate one
    within a cost.

    What is asked for holds with probability ``confidence`` over the draw of ``held_out``. For ``tolerance`` every
    threshold is tested, from "all escalate" downwards until the first failure (fixed-sequence testing), by an exact
    unconditional test of the losses and gains, paired with the heavy expert alone (Tango 1998, Sidik 2003). For ``charged`` and ``escalation`` the
    thresholds are tested upwards by Clopper-Pearson limits of the escalation, and the most accurate that passed is taken;
    its accuracy is not promised.

    Parameters
    ----------
    held_out : loader of images that trained, tuned or repaired neither expert
    prior : a prior of :class:`Predictions`, by default the maximum probability; "auto" takes the one of the greatest
        AUROC for the light expert's errors among those that cost nothing. A quarter of the images chooses it, and fits the temperature of scaled
        priors; the threshold is then calibrated on the other three.
    tolerance : accepted loss of accuracy, as a share of the images; 0.005 if no limit is given
    charged : charged cost allowed, in MACs per image as a ratio of the heavy expert
    escalation : share of the images that may escalate
    confidence : in (0, 1)
    answers : what answers an image that escalates: the "heavy" expert, or "both", which have both seen it, combined
        (:func:`combine`) with the weight that a quarter of the images fits; the other three quarters calibrate the threshold.
        Where no threshold passes the router falls back to "heavy".
    shared_blocks : of the cascade to come (:class:`agflow.Cascade`), for its cost
    tuning : sketch (:func:`agflow.sketch_images`) of the images that tuned an expert, which may not be held out too

    Raises
    ------
    EmptyError
        The loader gave no batch.
    InvalidValueError
        A limit or the confidence is out of range, several limits are given, there is no such prior, the answers are neither
        "heavy" nor "both", or an image held out is known to have tuned an expert.
    BudgetError
        The light expert alone costs more than ``charged``.
    """
    predictions = predict(light, heavy, held_out, shared_blocks=shared_blocks, tuning=tuning, progress=progress)
    return threshold_for(predictions, prior=prior, tolerance=tolerance, charged=charged, escalation=escalation, confidence=confidence, answers=answers)


def curve(predictions: Predictions, *, prior: str | None = None, points: int = 200, answers: str = HEAVY) -> Curve:
    """The exact accuracy and cost at every threshold of a prior, by default the maximum probability, thinned to at most
    ``points`` rows evenly in escalation. ``answers``: what answers an image that escalates, "heavy" or "both"."""
    request = {"prior": prior or "", "answers": answers, "points": points}
    return Curve(arrow.call_for_batch(core().curve, json.dumps(request), predictions.batch))
