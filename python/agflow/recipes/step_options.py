"""Options of the steps of iterative pruning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agflow._utils.defaults import default
from agflow.calibration.options import CalibrationOptions
from agflow.data.preprocessing import Preprocessing
from agflow.errors import InvalidValueError
from agflow.pruning.allocation import Allocation
from agflow.pruning.least_squares import check_compensation
from agflow.pruning.scoring import needs_weight_gradients
from agflow.training.options import Checkpointing, Distillation, TrainingOptions


@dataclass(frozen=True)
class StepOptions:
    """How each step of :func:`agflow.prune_iteratively` calibrates, plans, prunes and fine-tunes.

    Attributes
    ----------
    batches, groups, image_size, calibration : of :func:`agflow.calibrate`. Weight gradients are
        recorded where the criterion needs them.
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
    ('mlp', 'heads')
    """

    batches: int = default("calibrate", "batches")
    groups: Sequence[str] = default("calibrate", "groups")
    image_size: int | tuple[int, int] | None = None
    calibration: CalibrationOptions = CalibrationOptions()
    criterion: str = default("score", "criterion")
    allocation: Allocation = Allocation()
    compensate: str = default("prune", "compensate")
    epochs: int = default("finetune", "epochs")
    lr: float = default("finetune", "lr")
    distillation: Distillation | None = Distillation()
    training: TrainingOptions = TrainingOptions()
    checkpoint_every: int = Checkpointing.every
    preprocessing: Preprocessing | None = None

    def __post_init__(self) -> None:
        for name in ("batches", "epochs", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InvalidValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if not self.lr > 0:
            raise InvalidValueError(f"lr is {self.lr}, expected a number above 0")
        check_compensation(self.compensate)

    @property
    def weight_gradients(self) -> bool:
        """Whether the criterion, or that of the widths, needs the gradients of weights."""
        criteria = filter(None, (self.criterion, self.allocation.widths))
        return any(map(needs_weight_gradients, criteria))
