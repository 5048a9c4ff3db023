"""Options of the steps of iterative pruning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow._utils.sequences import names_of
from agflow.calibration.options import CalibrationOptions
from agflow.calibration.statistics import Statistics
from agflow.data.batches import Batch
from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError
from agflow.models import adapter_for
from agflow.models.layer_names import note_layers
from agflow.pruning.allocation import Allocation
from agflow.pruning.least_squares import check_compensation
from agflow.pruning.scoring import criterion_name, needs_weight_gradients
from agflow.training.options import Checkpointing, Distillation, TrainingOptions


@dataclass(frozen=True)
class StepOptions:
    """How each step of :func:`agflow.prune_iteratively` calibrates, plans, prunes and fine-tunes.

    Attributes
    ----------
    batches, groups, loss, image_size, calibration : of :func:`agflow.calibrate`. Weight gradients
        are recorded where the criterion needs them.
    criterion, allocation : of :func:`agflow.plan`
    compensate : of :func:`agflow.prune`
    epochs, lr, training : of :func:`agflow.finetune`
    distillation : of :func:`agflow.finetune`; without a teacher of its own the dense model is the
        teacher. None trains on labels alone.
    checkpoint_every : steps of the optimizer between two checkpoints of the fine-tuning
    preprocessing : what the model's images need, kept with each expert

    Raises
    ------
    InvalidValueError
        A value is out of range.

    Examples
    --------
    >>> from agflow.recipes import StepOptions
    >>> StepOptions(epochs=1, criterion="magnitude").groups
    ('mlp', 'heads', 'conv')
    """

    batches: int = default("calibrate", "batches")
    groups: str | Sequence[str] = default("calibrate", "groups")
    loss: str | Callable[[nn.Module, Batch], torch.Tensor] = default("calibrate", "loss")
    image_size: int | tuple[int, int] | None = None
    calibration: CalibrationOptions = CalibrationOptions()
    criterion: str | Callable[[Statistics], Any] = default("score", "criterion")
    allocation: Allocation = Allocation()
    compensate: str = default("prune", "compensate")
    epochs: int = default("finetune", "epochs")
    lr: float = default("finetune", "lr")
    distillation: Distillation | None = Distillation()
    training: TrainingOptions = TrainingOptions()
    checkpoint_every: int = Checkpointing.every
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", names_of(self.groups, "groups"))
        for name in ("batches", "epochs", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.lr > 0:
            raise InvalidValueError(f"lr is {self.lr}, expected a number above 0")
        check_compensation(self.compensate)

    def of_model(self, model: nn.Module) -> StepOptions:
        """These options with the names of layers in place of modules of ``model``."""
        adapter = adapter_for(model)
        note_layers(adapter, model)
        measured = {layer.name for layer in adapter.layers(model) if layer.kind in self.groups}
        names = tuple(self.allocation.ignored_names(measured))
        return replace(self, allocation=replace(self.allocation, ignored_layers=names))

    @property
    def weight_gradients(self) -> bool:
        """Whether the criterion, or that of the widths, needs the gradients of weights."""
        criteria = filter(None, (criterion_name(self.criterion), self.allocation.widths))
        return any(map(needs_weight_gradients, criteria))
