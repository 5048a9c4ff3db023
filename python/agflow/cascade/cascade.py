"""A light and a heavy expert as one module that routes each image.

Shape suffixes: B images of a call, E escalated ones, K classes.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow.cascade.ensemble import ENSEMBLE_ANSWERS, HEAVY_ANSWERS, combine
from agflow.cascade.ledger import CascadeCosts, Ledger, cost_text
from agflow.cascade.markup import facts_html
from agflow.cascade.priors import LOGIT_PRIORS, MAX_PROBABILITY, SCALED_SUFFIX, escalations
from agflow.cascade.router import Router, escalation_rule
from agflow.cascade.shared_prefix import shared_halves
from agflow.data.batches import read_images
from agflow.errors import EmptyError, InvalidValueError, ShapeError
from agflow.evaluation.durations import Durations, Latency
from agflow.models import model_logits, model_name


@dataclass(frozen=True)
class CascadeCall:
    """The counts and the time of one call of a cascade.

    Attributes
    ----------
    images, escalated : numbers of images
    seconds : from the images to the logits
    charged : expected cost per image, as a ratio of the heavy expert's (:class:`Ledger`); NaN of no
        image

    Examples
    --------
    >>> import agflow
    >>> agflow.cascade.CascadeCall(images=32, escalated=8, seconds=0.01, charged=0.45).escalated
    8
    """

    images: int
    escalated: int
    seconds: float
    charged: float


class Cascade(nn.Module):
    """Answer images by the light expert, and those of low confidence by the heavy one.

    An image escalates when the router's prior of its light logits is below the router's threshold.
    Escalated images form one heavy batch, and its logits are put back in their places, so the order
    of the batch is kept. Where the router's answers are the ensemble's, the logits of an escalated
    image are the averaged log-probabilities of both experts (:func:`agflow.cascade.combine`). A
    cascade is for inference only; no gradient flows. The counts behind the ledger are those of
    calls one after the other: let threads share a cascade through :class:`agflow.Server`.

    Parameters
    ----------
    light, heavy : models that map [B, C, H, W] to logits [B, K]; each gets the images in its own
        dtype and on its own device
    router : Router, or a bare threshold of the maximum probability, in [0, 1]
    shared_blocks : first blocks that, with the embeddings, are the same in both experts, bit for
        bit. Each image passes them once, and an escalated one goes on from their tokens. 0 shares
        nothing
    max_batch : greatest number of images in a pass; a larger batch goes through both passes in
        pieces. None sets no limit

    Attributes
    ----------
    ledger : Ledger
        Images since construction or :meth:`reset_ledger`, escalations, and their expected cost.
    last_call : CascadeCall
        The same of the latest call alone, and its time.
    latency : Latency
        p50 and p99 of a call, whatever its batch, in seconds, over at most the latest 10,000 calls
        since :meth:`reset_ledger`.

    Raises
    ------
    InvalidValueError
        The threshold is NaN, logits do not give the router's prior, the experts do not share
        ``shared_blocks`` (:func:`agflow.cascade.shared_halves`), or ``max_batch`` is below 1.
    UnsupportedModelError
        No adapter handles an expert.

    Examples
    --------
    >>> import agflow, torch
    >>> heavy, _, _ = agflow.load_model("example")
    >>> cascade = agflow.Cascade(agflow.models.at_image_size(heavy, 20), heavy, 0.8)
    >>> cascade(torch.zeros(4, 1, 28, 28)).shape
    torch.Size([4, 10])
    >>> cascade.last_call.images
    4
    """

    def __init__(
        self,
        light: nn.Module,
        heavy: nn.Module,
        router: Router | float,
        *,
        shared_blocks: int = 0,
        max_batch: int | None = None,
    ):
        super().__init__()
        self.light, self.heavy, self.router = light, heavy, router
        calibrated = isinstance(router, Router)
        self.threshold = float(router.threshold if calibrated else router)
        self.prior, self.temperature = (
            (router.prior, router.temperature) if calibrated else (MAX_PROBABILITY, 1.0)
        )
        self.answers, self.light_weight = (
            (router.answers, router.light_weight) if calibrated else (HEAVY_ANSWERS, 0.0)
        )
        _check(self.threshold, self.prior, max_batch)
        self.shared_blocks, self.max_batch = shared_blocks, max_batch
        if shared_blocks:
            self._prefix, self._light_rest, self._heavy_rest = shared_halves(
                light, heavy, shared_blocks
            )
        self.costs = CascadeCosts.of(light, heavy, shared_blocks)
        self.reset_ledger()

    def reset_ledger(self) -> None:
        """Start the ledger, the latest call and the latency again."""
        self._samples = self._escalated = 0
        self._last = (0, 0, 0.0)
        self._durations = Durations()

    @property
    def ledger(self) -> Ledger:
        """Cost of all calls since :meth:`reset_ledger`; that of no image before the first."""
        if not self._samples:
            return Ledger.empty(self.costs)
        return Ledger.of(self.costs, self._samples, self._escalated)

    @property
    def last_call(self) -> CascadeCall:
        """Counts and time of the latest call; of no image before the first."""
        images, escalated, seconds = self._last
        charged = Ledger.of(self.costs, images, escalated).charged if images else math.nan
        return CascadeCall(images, escalated, seconds, charged)

    @property
    def latency(self) -> Latency:
        """Percentiles of the calls' times in seconds; NaN before the first call."""
        return self._durations.latency

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits [B, K] of images [B, C, H, W]. On a GPU the call waits for its result.

        Raises
        ------
        EmptyError, ShapeError, DtypeError
            There is no image, x is not [B, C, H, W] of floats or does not fit an expert, or the
            experts have different numbers of classes.
        NonFiniteError
            A logit is NaN or infinite; the heavy expert's are checked where the ensemble answers.
        """
        start = time.perf_counter()
        x = _read(x)
        size = self.max_batch or len(x)
        logits_BK, escalated_E, seen_E = self._light_pass(x, size)
        if len(escalated_E):
            heavy = self._heavy_rest if self.shared_blocks else self.heavy
            heavy_EK = _joined([_float_logits(heavy, piece) for piece in seen_E.split(size)])
            logits_BK = self._with_escalated(logits_BK, escalated_E, heavy_EK)
        if x.is_cuda:
            torch.cuda.current_stream(x.device).synchronize()
        self._record(len(x), len(escalated_E), time.perf_counter() - start)
        return logits_BK

    def _light_pass(
        self, x: torch.Tensor, size: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Light logits of all images, indices of those that escalate, and what the heavy expert
        takes for these, images or tokens."""
        light = self._light_rest if self.shared_blocks else self.light
        logits, escalated, compacted = [], [], []
        for number, piece in enumerate(x.split(size)):
            if self.shared_blocks:
                piece = self._prefix(piece.to(first_parameter(self._prefix)))
            logits.append(_float_logits(light, piece))
            rows = escalations(
                logits[-1], self.threshold, prior=self.prior, temperature=self.temperature
            )
            escalated.append(rows + number * size)
            compacted.append(piece.index_select(0, rows.to(piece.device)))
        return _joined(logits), _joined(escalated), _joined(compacted)

    def _with_escalated(
        self, logits_BK: torch.Tensor, escalated_E: torch.Tensor, heavy_EK: torch.Tensor
    ) -> torch.Tensor:
        """The light logits with those of escalated images replaced."""
        if heavy_EK.shape[1] != logits_BK.shape[1]:
            raise ShapeError(
                f"the heavy expert answers for {heavy_EK.shape[1]} classes, "
                f"the light one for {logits_BK.shape[1]}: "
                "both must know the same classes in the same order"
            )
        if self.answers == ENSEMBLE_ANSWERS:
            heavy_EK = combine(logits_BK.index_select(0, escalated_E), heavy_EK, self.light_weight)
        return logits_BK.index_copy(0, escalated_E, heavy_EK.to(logits_BK))

    def _record(self, images: int, escalated: int, seconds: float) -> None:
        self._samples += images
        self._escalated += escalated
        self._last = (images, escalated, seconds)
        self._durations.add(seconds)

    def __repr__(self) -> str:
        light, heavy = (
            cost_text(cost, self.costs.unit) for cost in (self.costs.light, self.costs.heavy)
        )
        return (
            f"<agflow.Cascade: {model_name(self.heavy)}: {self._rule}; "
            f"light {light}, heavy {heavy}, {self._charged}>"
        )

    def _repr_html_(self) -> str:
        return facts_html(
            f"Cascade of {model_name(self.heavy)}",
            {
                "light expert": f"{cost_text(self.costs.light, self.costs.unit)} per image",
                "heavy expert": f"{cost_text(self.costs.heavy, self.costs.unit)} per image",
                "shared first blocks": str(self.shared_blocks),
                "rule": self._rule,
                "cost": self._charged,
            },
        )

    @property
    def _rule(self) -> str:
        return escalation_rule(self.prior, self.threshold)

    @property
    def _charged(self) -> str:
        if self._samples:
            return f"expected cost {self.ledger.charged:.3f}x on {self._samples} images"
        if isinstance(self.router, Router):
            return f"expected cost {self.router.ledger.charged:.3f}x as calibrated"
        return "no image yet"


def _check(threshold: float, prior: str, max_batch: int | None) -> None:
    if threshold != threshold:
        raise InvalidValueError(
            f"threshold is {threshold}, expected a number: calibrate one with calibrate_router"
        )
    if prior.removesuffix(SCALED_SUFFIX) not in LOGIT_PRIORS:
        raise InvalidValueError(
            f"the router's prior is {prior!r}, expected one that logits give "
            f"({', '.join(LOGIT_PRIORS)}): calibrate with one of these"
        )
    if max_batch is not None and max_batch < 1:
        raise InvalidValueError(
            f"max_batch is {max_batch}, expected a whole number from 1, or None for no limit"
        )


def _float_logits(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Logits in float32 at least: the experts may compute in different types."""
    logits_BK = model_logits(model, x)
    return logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))


def _read(x: torch.Tensor) -> torch.Tensor:
    if x.ndim != 4:
        raise ShapeError(
            f"the images have the shape {tuple(x.shape)}, expected [B, C, H, W]: "
            "give a single image as image[None]"
        )
    if not len(x):
        raise EmptyError("the batch has no image; expected at least one")
    return read_images(x)


def _joined(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
