"""Light expert first, heavy expert for what it is unsure of, as one module.

Shape suffixes: B images of a call, E escalated ones, K classes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from agflow.cascade.ensemble import BOTH, HEAVY, combine
from agflow.cascade.ledger import Costs, Ledger
from agflow.cascade.priors import LOGIT_PRIORS, PRIOR, SCALED, escalations
from agflow.cascade.router import Router
from agflow.cascade.shared_prefix import shared_halves
from agflow.errors import EmptyError, InvalidValueError, ShapeError
from agflow.evaluation.durations import Durations, Latency
from agflow.models import logits_of


@dataclass(frozen=True)
class Call:
    """What one call of a cascade did.

    Attributes
    ----------
    images, escalated : of the call
    seconds : from the images to the answers
    charged : MACs per image as a ratio of the heavy expert's, as :class:`Ledger` has it
    """

    images: int
    escalated: int
    seconds: float
    charged: float


class Cascade(nn.Module):
    """``cascade(x) -> logits``: the light expert answers, images below the router's threshold go on to the heavy one.

    Escalated images are compacted into one heavy batch and their answers scattered back, so the order of the batch
    is kept. Where the router answers by both experts, the logits of an escalated image are their combined log-probabilities
    (:func:`agflow.cascade.ensemble.combine`). For inference only; no gradient flows. The counts behind the ledger are those of calls one after the other:
    let threads share a cascade through :class:`agflow.Server`.

    Parameters
    ----------
    light, heavy : models that map float32 [B, C, H, W] to logits [B, K] on the same device
    router : Router, or a bare threshold of the maximum probability, in [0, 1]
    shared_blocks : the embeddings and first blocks that are the same in both experts, bit for bit. Each image goes through
        them once, and an escalated one goes on from the tokens behind them. 0 shares nothing
    max_batch : no expert sees more images at once; a larger batch goes through both passes in pieces

    Attributes
    ----------
    ledger : Ledger
        Images seen since construction or :meth:`reset_ledger`, escalations, charged and uncharged cost.
    last_call : Call
        The same of the latest call alone, and its time.
    latency : Latency
        p50 and p99 of a call, whatever its batch: what the caller waits for. Of at most the latest 10,000 calls since
        :meth:`reset_ledger`.

    Raises
    ------
    InvalidValueError
        The threshold is NaN, logits do not give the router's prior, the experts do not share ``shared_blocks``
        (:func:`agflow.cascade.shared_prefix.shared_halves`), or ``max_batch`` is below 1.
    UnsupportedModelError
        No adapter handles an expert.
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
            (router.prior, router.temperature) if calibrated else (PRIOR, 1.0)
        )
        self.answers, self.light_weight = (
            (router.answers, router.light_weight) if calibrated else (HEAVY, 0.0)
        )
        if self.threshold != self.threshold:
            raise InvalidValueError(
                f"threshold is {self.threshold}, expected a number: calibrate one with calibrate_router"
            )
        if self.prior.removesuffix(SCALED) not in LOGIT_PRIORS:
            raise InvalidValueError(
                f"the router's prior is {self.prior!r}, a cascade computes {', '.join(LOGIT_PRIORS)} from the logits: "
                "calibrate with one of these"
            )
        if max_batch is not None and max_batch < 1:
            raise InvalidValueError(
                f"max_batch is {max_batch}, expected a whole number from 1, or None for no limit"
            )
        self.shared_blocks, self.max_batch = shared_blocks, max_batch
        if shared_blocks:
            self._prefix, self._light_rest, self._heavy_rest = shared_halves(
                light, heavy, shared_blocks
            )
        self.costs = Costs.of(light, heavy, shared_blocks)
        self.reset_ledger()

    def reset_ledger(self) -> None:
        """Forget all calls so far."""
        self._samples = self._escalated = 0
        self._last = (0, 0, 0.0)
        self._durations = Durations()

    @property
    def ledger(self) -> Ledger:
        return Ledger.of(self.costs, self._samples, self._escalated)

    @property
    def last_call(self) -> Call:
        images, escalated, seconds = self._last
        return Call(images, escalated, seconds, Ledger.of(self.costs, images, escalated).charged)

    @property
    def latency(self) -> Latency:
        return self._durations.latency

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [B, K] for images [B, C, H, W]. On a GPU the call waits for its answers.

        Raises
        ------
        EmptyError, ShapeError
            There is no image, x is not [B, C, H, W], or the experts answer for different numbers of classes.
        NonFiniteError
            An expert gave a logit that is NaN or infinite; the heavy expert's are looked at where both answer.
        """
        start = time.perf_counter()
        if x.ndim != 4:
            raise ShapeError(
                f"the images have the shape {tuple(x.shape)}, expected [B, C, H, W]: give a single image as image[None]"
            )
        if not len(x):
            raise EmptyError("the batch has no image; expected at least one")
        size = self.max_batch or len(x)
        logits_BK, escalated_E, seen_E = self._light_pass(x, size)
        if len(escalated_E):
            heavy = self._heavy_rest if self.shared_blocks else self.heavy
            heavy_EK = _joined([logits_of(heavy(piece)) for piece in seen_E.split(size)])
            logits_BK = self._answered(logits_BK, escalated_E, heavy_EK)
        if x.is_cuda:
            torch.cuda.current_stream(x.device).synchronize()
        self._record(len(x), len(escalated_E), time.perf_counter() - start)
        return logits_BK

    def _light_pass(
        self, x: torch.Tensor, size: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits of all images; which of them escalate, ascending; what the heavy expert goes on from, images or tokens, of these."""
        light = self._light_rest if self.shared_blocks else self.light
        logits, escalated, compacted = [], [], []
        for number, piece in enumerate(x.split(size)):
            seen = self._prefix(piece) if self.shared_blocks else piece
            logits.append(logits_of(light(seen)))
            rows = escalations(
                logits[-1], self.threshold, prior=self.prior, temperature=self.temperature
            )
            escalated.append(rows + number * size)
            compacted.append(seen.index_select(0, rows))
        return _joined(logits), _joined(escalated), _joined(compacted)

    def _answered(
        self, logits_BK: torch.Tensor, escalated_E: torch.Tensor, heavy_EK: torch.Tensor
    ) -> torch.Tensor:
        """The light expert's logits with the answers to escalated images in their places."""
        if heavy_EK.shape[1] != logits_BK.shape[1]:
            raise ShapeError(
                f"the heavy expert answers for {heavy_EK.shape[1]} classes, the light one for {logits_BK.shape[1]}: "
                "both must know the same classes in the same order"
            )
        if self.answers == BOTH:
            heavy_EK = combine(logits_BK.index_select(0, escalated_E), heavy_EK, self.light_weight)
        return logits_BK.index_copy(0, escalated_E, heavy_EK.to(logits_BK.dtype))

    def _record(self, images: int, escalated: int, seconds: float) -> None:
        self._samples += images
        self._escalated += escalated
        self._last = (images, escalated, seconds)
        self._durations.add(seconds)


def _joined(pieces: list[torch.Tensor]) -> torch.Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
