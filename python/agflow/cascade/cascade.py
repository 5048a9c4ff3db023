"""A light and a heavy expert as one module that routes each image.

Shape suffixes: B images of a call, E escalated ones, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from agflow._utils.compiling import compiled_inside, outside_graphs
from agflow.cascade.ensemble import HEAVY_ANSWERS
from agflow.cascade.expert_costs import (
    UNKNOWN_COSTS,
    Costs,
    are_timed,
    costs_on_images,
    costs_without_images,
)
from agflow.cascade.ledger import CascadeCosts, Ledger, cost_text
from agflow.cascade.markup import facts_html
from agflow.cascade.priors import LOGIT_PRIORS, MAX_PROBABILITY, SCALED_SUFFIX
from agflow.cascade.routed_call import RoutedCall
from agflow.cascade.router import Router, escalation_rule
from agflow.cascade.shared_prefix import shared_halves
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.evaluation.durations import Durations, Latency
from agflow.models import as_module, model_logits, model_name


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
    cascade is for inference only; no gradient flows, and the experts run in evaluation mode. The
    counts behind the ledger are those of calls one after the other: let threads share a cascade
    through :class:`agflow.Server`. ``torch.compile`` compiles the experts and not the routing.

    Parameters
    ----------
    light, heavy : any two models that map [B, C, H, W] to logits [B, K], functions included
        (:func:`agflow.models.as_module`); each gets the images in its own dtype and on its own
        device. One that needs a normalisation of its own is ``nn.Sequential(normalise, model)``
    router : Router, or a bare threshold of the maximum probability, in [0, 1]
    shared_blocks : first blocks that, with the embeddings, are the same in both experts, bit for
        bit. Each image passes them once, and an escalated one goes on from their tokens. 0 shares
        nothing
    max_batch : greatest number of images in a pass; a larger batch goes through both passes in
        pieces. None sets no limit
    costs : of one image: a pair (light, heavy), CascadeCosts in any unit, or ``"measured"``, which
        times both experts in ms on the first batch. None takes those that the router was calibrated
        with where they are no MACs, and else counts MACs (:func:`agflow.models.model_macs`) or, of
        an ONNX file that does not hold them, times both

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
        ``shared_blocks`` (:func:`agflow.cascade.shared_halves`), ``max_batch`` is below 1, or costs
        are none.
    UnsupportedModelError
        An expert cannot be called, or blocks are shared and no adapter handles an expert.

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
        light: nn.Module | Callable,
        heavy: nn.Module | Callable,
        router: Router | float,
        *,
        shared_blocks: int = 0,
        max_batch: int | None = None,
        costs: Costs = None,
    ):
        super().__init__()
        self.light, self.heavy, self.router = as_module(light), as_module(heavy), router
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
                self.light, self.heavy, shared_blocks
            )
        self._costs = costs_without_images(self.light, self.heavy, costs, shared_blocks, router)
        self._measured, self._example = are_timed(self.light, self.heavy, costs), None
        self.reset_ledger()

    def reset_ledger(self) -> None:
        """Start the ledger, the latest call and the latency again."""
        self._samples = self._escalated = 0
        self._last = (0, 0, 0.0)
        self._durations = Durations()

    @property
    def parts(self) -> tuple[nn.Module | None, nn.Module, nn.Module]:
        """The modules that run: the shared prefix, None without one, and what is behind it of the
        light and of the heavy expert."""
        if not self.shared_blocks:
            return None, self.light, self.heavy
        return self._prefix, self._light_rest, self._heavy_rest

    @property
    def costs(self) -> CascadeCosts:
        """Costs of one image.

        Raises
        ------
        InvalidValueError
            They are counted or timed on images, and there was none yet.
        UnsupportedModelError
            The operations of an expert cannot be counted (:func:`agflow.models.model_macs`).
        """
        if self._costs is None:
            if self._example is None:
                raise InvalidValueError(
                    "the costs of the experts are not known before the first call, expected one: "
                    "call the cascade on images, or give costs=(0.25, 1.0)"
                )
            self._costs = costs_on_images(
                self.light,
                self.heavy,
                self._example,
                self.shared_blocks,
                measured=self._measured,
            )
        return self._costs

    @property
    def ledger(self) -> Ledger:
        """Cost of all calls since :meth:`reset_ledger`; that of no image before the first."""
        if not self._samples:
            return Ledger.empty(self._costs or UNKNOWN_COSTS)
        return Ledger.of(self.costs, self._samples, self._escalated)

    @property
    def last_call(self) -> CascadeCall:
        """Counts and time of the latest call; of no image before the first."""
        images, escalated, seconds = self._last
        known = images and _known_costs(self) is not UNKNOWN_COSTS
        charged = Ledger.of(self.costs, images, escalated).charged if known else math.nan
        return CascadeCall(images, escalated, seconds, charged)

    @property
    def latency(self) -> Latency:
        """Percentiles of the calls' times in seconds; NaN before the first call."""
        return self._durations.latency

    @torch.no_grad()
    @compiled_inside
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
        call = RoutedCall(self, x)
        prefix, light, heavy = self.parts
        with call:
            for piece in call.pieces():
                seen = piece if prefix is None else prefix(piece)
                call.take_light(model_logits(light, seen), seen)
            for piece in call.compacted():
                call.take_heavy(model_logits(heavy, piece))
            logits_BK = call.answers()
        self._record(call, x)
        return logits_BK

    @outside_graphs
    def _record(self, call: RoutedCall, x: torch.Tensor) -> None:
        self._samples += call.images
        self._escalated += call.escalated
        self._last = (call.images, call.escalated, call.seconds)
        self._durations.add(call.seconds)
        if self._costs is None and self._example is None:
            self._example = (x if self._measured else x[:1]).clone()

    def __repr__(self) -> str:
        facts = _facts(self)
        return (
            f"<agflow.Cascade: {model_name(self.heavy)}: {facts['rule']}; "
            f"light {facts['light']}, heavy {facts['heavy']}, {facts['cost']}>"
        )

    def _repr_html_(self) -> str:
        facts = _facts(self)
        return facts_html(
            f"Cascade of {model_name(self.heavy)}",
            {
                "light expert": f"{facts['light']} per image",
                "heavy expert": f"{facts['heavy']} per image",
                "shared first blocks": str(self.shared_blocks),
                "rule": facts["rule"],
                "cost": facts["cost"],
            },
        )


def _facts(cascade: Cascade) -> dict[str, str]:
    """What a cascade says of itself."""
    costs = _known_costs(cascade)
    return {
        "light": cost_text(costs.light, costs.unit),
        "heavy": cost_text(costs.heavy, costs.unit),
        "rule": escalation_rule(cascade.prior, cascade.threshold),
        "cost": _charged(cascade),
    }


def _charged(cascade: Cascade) -> str:
    call = cascade.last_call
    if call.images and math.isnan(call.charged):
        return f"{call.images} images"
    if call.images:
        return f"expected cost {cascade.ledger.charged:.3f}x on {cascade.ledger.samples} images"
    if isinstance(cascade.router, Router):
        return f"expected cost {cascade.router.ledger.charged:.3f}x as calibrated"
    return "no image yet"


def _known_costs(cascade: Cascade) -> CascadeCosts:
    """The costs, or numbers that are none where they cannot be known yet or at all."""
    try:
        return cascade.costs
    except (InvalidValueError, UnsupportedModelError):
        return UNKNOWN_COSTS


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
