"""Successive halving: prune all candidates, distil the better half a little, the best fully.

Shape suffixes: N images, B images of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from tqdm import tqdm

from agflow._utils.defaults import default
from agflow._utils.devices import device_of
from agflow._utils.modes import preserve_training_mode, with_gradients
from agflow.calibration.calibration import calibrate
from agflow.calibration.statistics import Statistics
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import join_predictions
from agflow.data.leakage import ImageSketch, image_hashes
from agflow.data.repeated import SameImages
from agflow.errors import BudgetError, InvalidValueError
from agflow.evaluation.accuracy import logits
from agflow.evaluation.timing import interleaved
from agflow.models import adapter_for, split
from agflow.models.passes import LABELS, run_models
from agflow.models.resolution import image_size
from agflow.pruning.planning import Plan
from agflow.search.candidates import Candidate, candidates, prune_candidate
from agflow.search.design import CascadeDesign
from agflow.search.frontier import (
    FULL,
    PRUNED,
    SHORT,
    EvaluatedCandidate,
    Frontier,
    evaluate_candidate,
)
from agflow.search.space import COST_UNITS, SearchSpace, Size
from agflow.training.distillation import CachedTeacher, distill

FINALISTS = 2
LITTLE_SHARE = 0.25  # of the epochs, after which the finalists are chosen
REPAIR_IMAGES = 256  # tuning images that calibrate and repair the candidates
CLOCKED_IMAGES = 32  # in the batch that measures costs in seconds


@with_gradients
def design_cascade(
    heavy: nn.Module,
    tuning: Iterable,
    choosing: Iterable,
    *,
    tolerance: float = default("route", "tolerance"),
    space: SearchSpace = SearchSpace(),
    epochs: int = default("design", "epochs"),
    lr: float = default("design", "lr"),
    seed: int = default("common", "seed"),
) -> CascadeDesign:
    """Choose the light expert whose cascade costs least at the heavy expert's accuracy.

    Each candidate of ``space`` is pruned and repaired (statistics at its image size, units by AGF,
    :func:`agflow.prune`) and evaluated on ``choosing``: the cheapest of all thresholds at which the
    cascade is as accurate as the heavy expert, less ``tolerance`` or one standard error of the
    heavy expert's accuracy there, whichever is greater; differences below a standard error depend
    on single images. Then successive halving (Jamieson and Talwalkar 2015, arXiv 1502.07943): the
    better half, by the expected cost if exactly the images escalated that they lose, which training
    changes less than their confidence, is distilled for a quarter of the epochs, and the two of
    least expected cost then for the rest. The heavy expert sees each tuning image once
    (:class:`agflow.training.CachedTeacher`).

    The threshold is chosen together with the expert, so its accuracy is optimistic: calibrate it on
    images held out from both (:meth:`agflow.search.CascadeDesign.calibrate`). With costs in MACs,
    equal calls give equal bits on one machine.

    Parameters
    ----------
    heavy : float32; is not changed
    tuning, choosing : loaders of (images [B, C, H, W], labels [B]). The first is
        traversed once and kept in memory in half precision; the order of the second must not change
    tolerance : accepted loss of accuracy, as a share of the images
    space : the candidates, and the cost to minimise
    epochs : of distillation of the finalists
    lr : peak learning rate of the distillation

    Raises
    ------
    EmptyError
        A loader gave no batch.
    InvalidValueError
        A value is out of range, an image size is no multiple of the patches, or no candidate is
        left.
    BudgetError
        No candidate can be pruned to its share of MACs.
    UnsupportedModelError, DtypeError
        No adapter handles the heavy expert, or it cannot be changed so; it is not float32.
    NonFiniteError
        An expert gave NaN or infinity, or the distillation did: try a lower ``lr``.

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader, Subset
    >>> heavy, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=128)
    >>> tuning, choosing = (
    ...     DataLoader(Subset(images, part), 32) for part in (range(64), range(64, 128))
    ... )
    >>> space = agflow.search.SearchSpace(image_sizes=(16,), macs=(1.0,))
    >>> design = agflow.design_cascade(heavy, tuning, choosing, space=space, epochs=1)
    >>> design.chosen.image_size
    '16x16'
    """
    _check(tolerance, epochs)
    sought = candidates(heavy, space)
    if not sought:
        raise InvalidValueError(
            "no candidate is left but the heavy expert itself: "
            "allow a share of MACs below 1 or a smaller image size"
        )
    sketch = ImageSketch()
    teacher = CachedTeacher.of(heavy, tuning, sketch=sketch)
    search = _Search(heavy, teacher, choosing, space, tolerance=tolerance, lr=lr, seed=seed)
    search.evaluate_heavy(sketch)
    little = max(1, round(LITTLE_SHARE * epochs))
    experts = search.prune(sought)
    experts = sorted(experts, key=lambda expert: expert.evaluated.oracle)
    experts = experts[: max(FINALISTS, math.ceil(len(experts) / 2))]
    experts = [search.train(expert, SHORT, little) for expert in experts]
    experts = sorted(experts, key=lambda expert: expert.evaluated.charged)[:FINALISTS]
    if epochs > little:
        for expert in experts:
            search.train(expert, FULL, epochs - little)
    best = search.best  # of all stages: on too few images the distillation may do harm
    return CascadeDesign(
        best.model.eval(),
        heavy,
        best.plan,
        best.evaluated,
        search.frontier(),
        tolerance,
        str(sketch),
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
    """The model of a candidate at one stage."""

    candidate: Candidate
    model: nn.Module
    plan: Plan | None
    evaluated: EvaluatedCandidate


class _Search:
    """Prunes, trains and evaluates candidates.

    ``rows`` holds every evaluation in order.
    """

    def __init__(
        self,
        heavy: nn.Module,
        teacher: CachedTeacher,
        choosing: Iterable,
        space: SearchSpace,
        *,
        tolerance: float,
        lr: float,
        seed: int,
    ):
        self.heavy, self.teacher, self.space = heavy, teacher, space
        self.choosing = SameImages(choosing)  # every expert's answers to them are joined by row
        self.tolerance, self.lr, self.seed = tolerance, lr, seed
        self.rows: list[EvaluatedCandidate] = []
        self._best: _Expert | None = None
        self.repairing = teacher.plain(REPAIR_IMAGES)
        self._costs: dict[Candidate, tuple[CascadeCosts, float]] = {}

    @property
    def best(self) -> _Expert:
        """The expert of least expected cost of all stages so far; :meth:`prune` finds the first."""
        assert self._best is not None
        return self._best

    def evaluate_heavy(self, sketch: ImageSketch) -> None:
        """Compute the heavy expert's logits of the choosing images, and add these to ``sketch``."""
        rows = run_models(
            {"heavy expert": self.heavy},
            self.choosing,
            description="heavy expert",
            rows_of=lambda images_BCHW: {"hashes": image_hashes(images_BCHW)},
        )
        sketch.add_hashes(rows["hashes"])
        self.heavy_NK, self.labels_N = rows["heavy expert"], rows[LABELS]
        self.heavy_accuracy = float((self.heavy_NK.argmax(1) == self.labels_N).double().mean())
        self.tolerance = max(
            self.tolerance,
            math.sqrt(self.heavy_accuracy * (1 - self.heavy_accuracy) / len(self.labels_N)),
        )

    def prune(self, sought: Sequence[Candidate]) -> list[_Expert]:
        """Prune and evaluate the candidates; those that no plan reaches are left out."""
        statistics, experts = {}, []
        for candidate in sought:
            size = candidate.image_size
            if candidate.width < 1 and size not in statistics:
                statistics[size] = self._statistics(size)
            made = prune_candidate(
                self.heavy,
                candidate,
                statistics.get(size),
                self.space.groups,
                self.repairing,
                seed=self.seed,
            )
            if made is not None:
                experts.append(self._evaluate(PRUNED, candidate, *made))
        if not experts:
            raise BudgetError(
                f"none of the {len(sought)} candidates can be pruned to its share of MACs: "
                "allow greater shares, more groups or fewer shared blocks"
            )
        return experts

    def train(self, expert: _Expert, stage: str, epochs: int) -> _Expert:
        """Distil a copy of an expert from the teacher and evaluate it."""
        model = copy.deepcopy(expert.model)
        distill(
            model,
            self.teacher,
            epochs=epochs,
            lr=self.lr,
            frozen_blocks=expert.candidate.shared_blocks,
            seed=self.seed,
        )
        return self._evaluate(stage, expert.candidate, model, expert.plan)

    def frontier(self) -> Frontier:
        """All evaluations so far; the best one is the chosen."""
        metadata = {
            "agflow.cost_unit": COST_UNITS[self.space.cost],
            "agflow.heavy_accuracy": repr(self.heavy_accuracy),
            "agflow.tolerance": repr(self.tolerance),
            "agflow.chosen": str(self.rows.index(self.best.evaluated)),
            "agflow.seed": str(self.seed),
        }
        return Frontier.of(self.rows, metadata)

    def _statistics(self, size: Size) -> Statistics:
        smaller = None if size == image_size(self.heavy) else size
        return calibrate(
            self.heavy,
            self.repairing,
            batches=len(self.repairing),
            groups=self.space.groups,
            image_size=smaller,
            seed=self.seed,
        )

    def _evaluate(
        self, stage: str, candidate: Candidate, model: nn.Module, plan: Plan | None
    ) -> _Expert:
        light_NK, _ = logits(model, self.choosing, description="light expert")
        if candidate not in self._costs:
            self._costs[candidate] = self._costs_of(candidate, model)
        costs, heavy_seconds = self._costs[candidate]
        row = evaluate_candidate(
            stage,
            candidate,
            sum(layer.group == "block" for layer in adapter_for(model).layers(model)),
            join_predictions(light_NK, self.heavy_NK, self.labels_N, costs),
            costs,
            tolerance=self.tolerance,
            ensemble=self.space.ensemble,
            heavy_seconds=heavy_seconds,
        )
        self.rows.append(row)
        tqdm.write(str(row), file=sys.stderr)
        expert = _Expert(candidate, model, plan, row)
        if self._best is None or row.charged < self._best.evaluated.charged:
            self._best = expert
        return expert

    def _costs_of(self, candidate: Candidate, model: nn.Module) -> tuple[CascadeCosts, float]:
        """Costs of an image in MACs or ms, and the heavy expert's seconds, 0 for MACs."""
        if self.space.cost == "seconds":
            return self._measured_costs(candidate, model)
        return CascadeCosts.of(model, self.heavy, candidate.shared_blocks), 0.0

    @torch.inference_mode()
    def _measured_costs(self, candidate: Candidate, model: nn.Module) -> tuple[CascadeCosts, float]:
        """The contenders take turns, so that drift of the machine affects all alike."""
        x = self.teacher.images[:CLOCKED_IMAGES].float().to(device_of(self.heavy))
        with preserve_training_mode(model, self.heavy):
            contenders = {"light": model.eval(), "heavy": self.heavy.eval()}
            if candidate.shared_blocks:
                contenders["shared"] = split(self.heavy, candidate.shared_blocks)[0]
            times = interleaved(
                {name: partial(_finish, module, x) for name, module in contenders.items()}, rounds=5
            )
        ms = {name: 1e3 * measured.median / len(x) for name, measured in times.items()}
        costs = CascadeCosts(ms["light"], ms["heavy"], ms.get("shared", 0.0), unit="ms")
        return costs, times["heavy"].median / len(x)


def _finish(module: nn.Module, x: torch.Tensor) -> None:
    """Run a module to its end, on a GPU too."""
    module(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
