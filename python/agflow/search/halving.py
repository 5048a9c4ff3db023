"""A cascade designed as a whole: image size, width, depth, shared blocks and threshold chosen together by what it costs."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn
from tqdm.auto import tqdm

from agflow._utils.modes import preserve_training_mode
from agflow.calibration.calibration import calibrate
from agflow.calibration.statistics import Statistics
from agflow.cascade.cascade import Cascade
from agflow.cascade.ensemble import BOTH
from agflow.cascade.ledger import Costs
from agflow.cascade.predictions import Predictions, predict
from agflow.cascade.router import Router, calibrate_router
from agflow.data.leakage import ImageSketch
from agflow.errors import BudgetError, InvalidValueError
from agflow.evaluation.accuracy import logits
from agflow.evaluation.timing import interleaved
from agflow.models import adapter_for, split
from agflow.models.resolution import image_size
from agflow.pruning.planning import Plan
from agflow.search.candidates import Candidate, candidates, cut
from agflow.search.frontier import EvaluatedCandidate, Frontier, evaluate_candidate
from agflow.search.space import SearchSpace, Size
from agflow.training.distillation import LR, CachedTeacher, distill

EPOCHS = 8
FINALISTS = 2
LITTLE = 0.25  # of the epochs tell which of the better half are the finalists
REPAIR_IMAGES = 256  # of the tuning images measure the units and repair the cuts
TIMED_IMAGES = 32


@dataclass(frozen=True)
class CascadeDesign:
    """The light expert that :func:`design_cascade` chose, beside all it chose from.

    Attributes
    ----------
    light, heavy : the experts
    plan : what the light expert was cut by; None for one that only looks at smaller images
    chosen : how it was judged, its threshold included, which is to be calibrated on other images (:meth:`calibrate`)
    frontier : all that was judged
    tolerance : accepted loss of accuracy, as a share of the images
    tuning : sketch of the images that trained and chose, on which no router may be calibrated
    """

    light: nn.Module = field(repr=False)
    heavy: nn.Module = field(repr=False)
    plan: Plan | None = field(repr=False)
    chosen: EvaluatedCandidate
    frontier: Frontier = field(repr=False)
    tolerance: float
    tuning: str = field(repr=False)

    @property
    def shared_blocks(self) -> int:
        """First blocks that both experts share."""
        return self.chosen.shared_blocks

    def predict(self, loader: Iterable, router: Router | None = None) -> Predictions:
        """What both experts say of the images of ``loader``, whose order must not change between two passes; costs are MACs.

        For images that judge, pass the router: its temperature and weight count, none is fitted on them.
        """
        return predict(
            self.light,
            self.heavy,
            loader,
            router=router,
            shared_blocks=self.shared_blocks,
            tuning=self.tuning,
        )

    def calibrate(
        self,
        held_out: Iterable | Predictions,
        *,
        tolerance: float | None = None,
        confidence: float = 0.95,
    ) -> Router:
        """The threshold, calibrated as :func:`agflow.calibrate_router` does on images that neither trained nor chose.

        Parameters
        ----------
        held_out : loader of such images, or what :meth:`predict` made of it
        tolerance : accepted loss of accuracy; by default that of the design
        confidence : in (0, 1)

        Raises
        ------
        EmptyError
            The loader gave no batch.
        InvalidValueError
            A value is out of range, or an image is known to have trained or chosen.
        """
        predictions = held_out if isinstance(held_out, Predictions) else self.predict(held_out)
        return calibrate_router(
            predictions,
            tolerance=self.tolerance if tolerance is None else tolerance,
            confidence=confidence,
            ensemble=self.chosen.answers == BOTH,
        )

    def cascade(self, router: Router | float) -> Cascade:
        """Both experts behind ``router``, their shared blocks computed once."""
        return Cascade(self.light, self.heavy, router, shared_blocks=self.shared_blocks)

    def __str__(self) -> str:
        return str(self.frontier)


def design_cascade(
    heavy: nn.Module,
    tuning: Iterable,
    choosing: Iterable,
    *,
    tolerance: float = 0.0,
    space: SearchSpace = SearchSpace(),
    epochs: int = EPOCHS,
    lr: float = LR,
    seed: int = 0,
) -> CascadeDesign:
    """Choose the light expert whose cascade costs least at the heavy expert's accuracy.

    Candidates are all combinations of image size, width, depth and shared blocks. Each is cut and repaired (statistics at
    its image size, units by AGF, :func:`agflow.prune`) and judged on ``choosing``: its cheapest threshold, of all there
    are, at which the cascade is right at least as often as the heavy expert, less ``tolerance`` or one standard error of the
    heavy expert's accuracy there, whichever is more: nearer than that, single images decide. Then successive halving (Jamieson and
    Talwalkar, arXiv 1502.07943): the better half, by what they would cost if just the images escalated that they lose,
    which training changes less than their sureness, is distilled for a quarter of the epochs, and the two with the least
    charged cost then for the others. The heavy expert looks at each tuning image once (:class:`agflow.training.CachedTeacher`).

    The threshold has been chosen with the expert and is an optimist's: calibrate it on images held out from both
    (:meth:`CascadeDesign.calibrate`). With ``cost="macs"`` equal calls give equal bits on one machine.

    Parameters
    ----------
    heavy : float32; left as it is
    tuning, choosing : loaders of (images float32 [B, C, H, W], labels int64 [B]). The first is gone through once and kept in
        memory in half precision; the order of the second must not change
    tolerance : accepted loss of accuracy, as a share of the images
    space : the candidates, and the cost to minimise
    epochs : of the finalists
    lr : peak learning rate of the distillation

    Raises
    ------
    EmptyError
        A loader gave no batch.
    InvalidValueError
        A value is out of range, an image size is no multiple of the patches, or no candidate is left.
    BudgetError
        No candidate can be cut to its width.
    UnsupportedModelError, DtypeError
        No adapter handles the heavy expert, or it cannot be changed so; it is not float32.
    NonFiniteError
        An expert gave NaN or infinity, or the distillation did: try a lower ``lr``.
    """
    _check(tolerance, epochs)
    sought = candidates(heavy, space)
    if not sought:
        raise InvalidValueError(
            "no candidate is left but the heavy expert itself: allow a width below 1 or a smaller image size"
        )
    seen = ImageSketch()
    remembered = CachedTeacher.of(heavy, tuning, sketch=seen)
    search = _Search(
        heavy,
        remembered,
        choosing,
        tolerance=tolerance,
        ensemble=space.ensemble,
        timed=space.cost == "seconds",
        lr=lr,
        seed=seed,
    )
    search.look(seen)
    little = max(1, round(LITTLE * epochs))
    experts = search.cut(sought, space.groups)
    experts = sorted(experts, key=lambda expert: expert.judged.oracle)[
        : max(FINALISTS, math.ceil(len(experts) / 2))
    ]
    experts = [search.train(expert, "little", little) for expert in experts]
    experts = sorted(experts, key=lambda expert: expert.judged.charged)[:FINALISTS]
    if epochs > little:
        for expert in experts:
            search.train(expert, "full", epochs - little)
    best = search.best  # of all stages: on too few images the distillation may do harm
    metadata = {
        "agflow.cost": space.cost,
        "agflow.heavy_accuracy": repr(search.heavy_accuracy),
        "agflow.tolerance": repr(search.tolerance),
        "agflow.chosen": str(search.rows.index(best.judged)),
        "agflow.seed": str(seed),
    }
    return CascadeDesign(
        best.model.eval(),
        heavy,
        best.plan,
        best.judged,
        Frontier.of(search.rows, metadata),
        tolerance,
        str(seen),
    )


def _check(tolerance: float, epochs: int) -> None:
    if not 0 <= tolerance < 1:
        raise InvalidValueError(
            f"tolerance is {tolerance}, expected a share of the images in [0, 1)"
        )
    if epochs < 1:
        raise InvalidValueError(f"epochs is {epochs}, expected at least 1")


@dataclass(frozen=True)
class _Expert:
    """A candidate as far as it has come."""

    candidate: Candidate
    model: nn.Module
    plan: Plan | None
    judged: EvaluatedCandidate


class _Search:
    """Makes experts of candidates, trains and judges them; keeps every judgement in ``rows``, and the expert of least charged cost in ``best``."""

    def __init__(
        self,
        heavy: nn.Module,
        remembered: CachedTeacher,
        choosing: Iterable,
        *,
        tolerance: float,
        ensemble: bool,
        timed: bool,
        lr: float,
        seed: int,
    ):
        self.heavy, self.remembered, self.choosing = heavy, remembered, choosing
        self.tolerance, self.ensemble, self.timed = tolerance, ensemble, timed
        self.lr, self.seed = lr, seed
        self.rows: list[EvaluatedCandidate] = []
        self.best: _Expert | None = None
        self.repairing = remembered.plain(REPAIR_IMAGES)
        self._costs: dict[Candidate, tuple[Costs, float]] = {}

    def look(self, seen: ImageSketch) -> None:
        """What the heavy expert says of the images that choose, which ``seen`` is given."""
        self.heavy_NK, self.labels_N = logits(
            self.heavy,
            seen.watching(self.choosing),
            description="heavy expert",
        )
        self.heavy_accuracy = float((self.heavy_NK.argmax(1) == self.labels_N).double().mean())
        self.tolerance = max(
            self.tolerance,
            math.sqrt(self.heavy_accuracy * (1 - self.heavy_accuracy) / len(self.labels_N)),
        )

    def cut(self, sought: list[Candidate], groups: Sequence[str]) -> list[_Expert]:
        """Those that can be made, cut and judged."""
        statistics, experts = {}, []
        for candidate in sought:
            size = candidate.image_size
            if candidate.width < 1 and size not in statistics:
                statistics[size] = self._statistics(size, groups)
            made = cut(
                self.heavy,
                candidate,
                statistics.get(size),
                groups,
                self.repairing,
                seed=self.seed,
            )
            if made is not None:
                experts.append(self._judged("cut", candidate, *made))
        if not experts:
            raise BudgetError(
                f"none of the {len(sought)} candidates can be cut to its width: allow greater shares of MACs, more groups or fewer shared blocks"
            )
        return experts

    def train(self, expert: _Expert, stage: str, epochs: int) -> _Expert:
        model = copy.deepcopy(expert.model)
        distill(
            model,
            self.remembered,
            epochs=epochs,
            lr=self.lr,
            frozen_blocks=expert.candidate.shared_blocks,
            seed=self.seed,
        )
        return self._judged(stage, expert.candidate, model, expert.plan)

    def _statistics(self, size: Size, groups: Sequence[str]) -> Statistics:
        smaller = None if size == image_size(self.heavy) else size
        return calibrate(
            self.heavy,
            self.repairing,
            batches=len(self.repairing),
            groups=groups,
            image_size=smaller,
            seed=self.seed,
        )

    def _judged(
        self, stage: str, candidate: Candidate, model: nn.Module, plan: Plan | None
    ) -> _Expert:
        light_NK, _ = logits(model, self.choosing, description="light expert")
        if candidate not in self._costs:
            self._costs[candidate] = (
                self._timed(candidate, model)
                if self.timed
                else (Costs.of(model, self.heavy, candidate.shared_blocks), 0.0)
            )
        costs, heavy_seconds = self._costs[candidate]
        branches = sum(layer.group == "block" for layer in adapter_for(model).layers(model))
        row = evaluate_candidate(
            stage,
            candidate,
            branches,
            light_NK,
            self.heavy_NK,
            self.labels_N,
            costs,
            tolerance=self.tolerance,
            ensemble=self.ensemble,
            heavy_seconds=heavy_seconds,
        )
        self.rows.append(row)
        tqdm.write(str(row), file=sys.stderr)
        expert = _Expert(candidate, model, plan, row)
        if self.best is None or row.charged < self.best.judged.charged:
            self.best = expert
        return expert

    @torch.inference_mode()
    def _timed(self, candidate: Candidate, model: nn.Module) -> tuple[Costs, float]:
        """Nanoseconds per image of both experts and of their shared blocks, in turn, so that drift hits all alike; the heavy one's seconds."""
        x = self.remembered.images[:TIMED_IMAGES].float().to(next(self.heavy.parameters()).device)
        with preserve_training_mode(model, self.heavy):
            contenders = {"light": model.eval(), "heavy": self.heavy.eval()}
            if candidate.shared_blocks:
                contenders["shared"] = split(self.heavy, candidate.shared_blocks)[0]
            times = interleaved(
                {name: partial(_finish, module, x) for name, module in contenders.items()}, rounds=5
            )
        nanoseconds = {
            name: round(1e9 * measured.median / len(x)) for name, measured in times.items()
        }
        return Costs(
            nanoseconds["light"], nanoseconds["heavy"], nanoseconds.get("shared", 0)
        ), times["heavy"].median / len(x)


def _finish(module: nn.Module, x: torch.Tensor) -> None:
    module(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
