"""Successive halving: prune all candidates, distil the better half a little, the best fully.

Shape suffixes: N images, B images of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import copy
import math
import pathlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from agflow._utils.defaults import default
from agflow._utils.devices import device_of
from agflow._utils.modes import with_gradients
from agflow.calibration.calibration import calibrate
from agflow.calibration.options import CalibrationOptions
from agflow.calibration.statistics import Statistics
from agflow.cascade.expert_costs import costs_on_images
from agflow.cascade.ledger import CascadeCosts
from agflow.cascade.predictions import join_predictions
from agflow.data.batches import labelled_batches
from agflow.data.leakage import ImageSketch, image_hashes
from agflow.data.repeated import SameImages
from agflow.errors import BudgetError, InvalidValueError
from agflow.evaluation.accuracy import logits
from agflow.models import adapter_for
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
from agflow.search.keeping import SearchedExpert, SearchSteps, Tensors
from agflow.search.space import COST_UNITS, SearchSpace, Size
from agflow.training.distillation import CachedTeacher, distill
from agflow.training.options import Checkpointing

FINALISTS = 2
LITTLE_SHARE = 0.25  # of the epochs, after which the finalists are chosen
CLOCKED_IMAGES = 32  # in the batch that is timed
REPAIR_IMAGES = 256  # tuning images that calibrate and repair the candidates


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
    training = SearchTraining(epochs, lr, seed)
    return design_in_steps(
        heavy, tuning, choosing, SearchSteps(), tolerance=tolerance, space=space, training=training
    )


@dataclass(frozen=True)
class SearchTraining:
    """How a search trains its candidates; see :func:`design_cascade`."""

    epochs: int
    lr: float
    seed: int


@with_gradients
def design_in_steps(
    heavy: nn.Module,
    tuning: Iterable,
    choosing: Iterable,
    steps: SearchSteps,
    *,
    tolerance: float,
    space: SearchSpace,
    training: SearchTraining,
) -> CascadeDesign:
    """:func:`design_cascade` with ``steps`` that may keep what is made and find it again."""
    epochs = training.epochs
    _check(tolerance, epochs)
    sought = candidates(heavy, space)
    if not sought:
        raise InvalidValueError(
            "no candidate is left but the heavy expert itself: "
            "allow a share of MACs below 1 or a smaller image size"
        )
    sketch = ImageSketch()
    teacher = _cached_teacher(heavy, tuning, steps, sketch)
    search = _Search(heavy, teacher, choosing, space, steps, training, tolerance)
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


def _cached_teacher(
    heavy: nn.Module, tuning: Iterable, steps: SearchSteps, sketch: ImageSketch
) -> CachedTeacher:
    """The teacher's logits are kept; its images are read again, for they are many times larger."""
    images_NCHW: list[torch.Tensor] = []

    def add(images_BCHW: torch.Tensor) -> Tensors:
        images_NCHW.append(images_BCHW.cpu().half())
        return {"hashes": image_hashes(images_BCHW)}

    rows = steps.tensors(
        "teacher",
        lambda: run_models({"logits": heavy}, tuning, description="teacher", rows_of=add),
    )
    if not images_NCHW:
        for batch in labelled_batches(tuning, "tuning images"):
            add(batch.images)
    sketch.add_hashes(rows["hashes"])
    return CachedTeacher(torch.cat(images_NCHW), rows[LABELS], rows["logits"])


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
        steps: SearchSteps,
        training: SearchTraining,
        tolerance: float,
    ):
        self.heavy, self.teacher, self.space, self.steps = heavy, teacher, space, steps
        self.choosing = SameImages(choosing)  # every expert's answers to them are joined by row
        self.tolerance, self.lr, self.seed = tolerance, training.lr, training.seed
        self.rows: list[EvaluatedCandidate] = []
        self._best: SearchedExpert | None = None
        self.repairing = teacher.plain(REPAIR_IMAGES)
        self._statistics: dict[Size, Statistics] = {}

    @property
    def best(self) -> SearchedExpert:
        """The expert of least expected cost of all stages so far; :meth:`prune` finds the first."""
        assert self._best is not None
        return self._best

    def evaluate_heavy(self, sketch: ImageSketch) -> None:
        """Compute the heavy expert's logits of the choosing images, and add these to ``sketch``."""
        rows = self.steps.tensors(
            "heavy",
            lambda: run_models(
                {"logits": self.heavy},
                self.choosing,
                description="heavy expert",
                rows_of=lambda images_BCHW: {"hashes": image_hashes(images_BCHW)},
            ),
        )
        sketch.add_hashes(rows["hashes"])
        self.heavy_NK, self.labels_N = rows["logits"], rows[LABELS]
        self.heavy_accuracy = float((self.heavy_NK.argmax(1) == self.labels_N).double().mean())
        self.tolerance = max(
            self.tolerance,
            math.sqrt(self.heavy_accuracy * (1 - self.heavy_accuracy) / len(self.labels_N)),
        )

    def prune(self, sought: Sequence[Candidate]) -> list[SearchedExpert]:
        """Prune and evaluate the candidates; those that no plan reaches are left out."""
        experts = []
        for candidate in sought:
            make = lambda _, candidate=candidate: self._pruned(candidate)
            expert = self.steps.expert(_name(PRUNED, candidate), make)
            if expert is not None:
                experts.append(self._noted(expert))
        if not experts:
            raise BudgetError(
                f"none of the {len(sought)} candidates can be pruned to its share of MACs: "
                "allow greater shares, more groups or fewer shared blocks"
            )
        return experts

    def train(self, expert: SearchedExpert, stage: str, epochs: int) -> SearchedExpert:
        """Distil a copy of an expert from the teacher and evaluate it."""

        def trained(checkpoint: pathlib.Path | None) -> SearchedExpert:
            model = copy.deepcopy(expert.model)
            distill(
                model,
                self.teacher,
                epochs=epochs,
                lr=self.lr,
                frozen_blocks=expert.candidate.shared_blocks,
                checkpointing=None if checkpoint is None else Checkpointing(checkpoint),
                seed=self.seed,
            )
            costs = expert.costs, expert.heavy_seconds
            return self._evaluated(stage, expert.candidate, model, expert.plan, costs)

        found = self.steps.expert(_name(stage, expert.candidate), trained)
        assert found is not None
        return self._noted(found)

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

    def _pruned(self, candidate: Candidate) -> SearchedExpert | None:
        made = prune_candidate(
            self.heavy,
            candidate,
            self._statistics_at(candidate.image_size) if candidate.width < 1 else None,
            self.space.groups,
            self.repairing,
            seed=self.seed,
        )
        if made is None:
            return None
        return self._evaluated(PRUNED, candidate, *made, self._costs(candidate, made[0]))

    def _costs(self, candidate: Candidate, light: nn.Module) -> tuple[CascadeCosts, float]:
        """Costs of an image in MACs or ms, and the heavy expert's seconds, 0 for MACs."""
        if self.space.cost == "seconds":
            images, blocks = self.teacher.images[:CLOCKED_IMAGES], candidate.shared_blocks
            costs = costs_on_images(light, self.heavy, images, blocks, measured=True)
            return costs, costs.heavy / 1e3
        return CascadeCosts.of(light, self.heavy, candidate.shared_blocks), 0.0

    def _statistics_at(self, size: Size) -> Statistics:
        """Measured once, as soon as a candidate of this size is made."""
        if size not in self._statistics:
            self._statistics[size] = calibrate(
                self.heavy,
                self.repairing,
                batches=len(self.repairing),
                groups=self.space.groups,
                image_size=None if size == image_size(self.heavy) else size,
                options=CalibrationOptions(seed=self.seed),
            )
        return self._statistics[size]

    def _evaluated(
        self,
        stage: str,
        candidate: Candidate,
        model: nn.Module,
        plan: Plan | None,
        measured: tuple[CascadeCosts, float],
    ) -> SearchedExpert:
        costs, heavy_seconds = measured
        light_NK, _ = logits(model, self.choosing, description="light expert")
        row = evaluate_candidate(
            stage,
            candidate,
            sum(layer.kind == "block" for layer in adapter_for(model).layers(model)),
            join_predictions(light_NK, self.heavy_NK, self.labels_N, costs),
            costs,
            tolerance=self.tolerance,
            ensemble=self.space.ensemble,
            heavy_seconds=heavy_seconds,
        )
        return SearchedExpert(candidate, model, plan, row, costs, heavy_seconds)

    def _noted(self, expert: SearchedExpert) -> SearchedExpert:
        """An expert that was made or found, on the device of the heavy one."""
        expert.model.to(device_of(self.heavy))
        row = expert.evaluated
        self.rows.append(row)
        tqdm.write(str(row), file=sys.stderr)
        if self._best is None or row.charged < self._best.evaluated.charged:
            self._best = expert
        return expert


def _name(stage: str, candidate: Candidate) -> str:
    """The name of a candidate's step."""
    height, width = candidate.image_size
    drops = "-branches" * candidate.drops
    shared = f"-shared-{candidate.shared_blocks}" * bool(candidate.shared_blocks)
    return f"{stage}-{height}x{width}-{candidate.width!r}{drops}{shared}"
