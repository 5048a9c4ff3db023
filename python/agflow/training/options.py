"""Options of a fine-tuning that belong together: distillation, checkpointing and the training."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from agflow._utils.defaults import default
from agflow.errors import InvalidValueError


@dataclass(frozen=True)
class Distillation:
    """How a model learns from a teacher: loss (1 - share) * cross entropy + share * T² * KL.

    KL is between the outputs of teacher and model, both softened by the temperature T (Hinton et
    al., arXiv 1503.02531).

    Parameters
    ----------
    teacher : evaluated without gradients; it and its training mode are left as they were. None
        where the batches bring the teacher's answers (:class:`agflow.training.CachedTeacher`,
        :class:`agflow.training.CachedViews`)
    share : of the teacher's term in the loss, in [0, 1]
    temperature : above 0
    features : weight of one more term, the mean squared error between the features that the last
        blocks of model and teacher put out: tokens [B, T, D], or the last maps [B, C, H, W] before
        the pooling, whose positions are tokens. Each is normalised to mean 0 and variance 1. Where
        channels of the model's last block were cut, the similarities of the tokens are compared
        instead (1 minus their centred kernel alignment)

    Raises
    ------
    InvalidValueError
        A value is out of range.

    Examples
    --------
    >>> from agflow.training import Distillation
    >>> Distillation(share=0.5)
    Distillation(share=0.5, temperature=2.0, features=0.0)
    """

    teacher: nn.Module | None = field(default=None, repr=False)
    share: float = default("finetune", "distill")
    temperature: float = default("finetune", "temperature")
    features: float = default("finetune", "features")

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidValueError(
                f"share of the distillation is {self.share}, expected a number in [0, 1]"
            )
        if not self.temperature > 0:
            raise InvalidValueError(f"temperature is {self.temperature}, expected a number above 0")
        if not (self.features >= 0 and math.isfinite(self.features)):
            raise InvalidValueError(f"features is {self.features}, expected a weight of at least 0")


@dataclass(frozen=True)
class Checkpointing:
    """Where a fine-tuning keeps its state, so that the same call after a crash goes on from there.

    Parameters
    ----------
    path : file that is replaced after every epoch and every ``every`` steps
    every : steps, counted on each rank

    Raises
    ------
    InvalidValueError
        A value is out of range.

    Examples
    --------
    >>> from agflow.training import Checkpointing
    >>> Checkpointing("run.safetensors")
    Checkpointing(path='run.safetensors', every=200)
    """

    path: str | os.PathLike
    every: int = default("finetune", "checkpoint_every")

    def __post_init__(self) -> None:
        if self.every < 1:
            raise InvalidValueError(f"every is {self.every}, expected at least 1 step")


@dataclass(frozen=True)
class TrainingOptions:
    """What else decides a fine-tuning.

    Parameters
    ----------
    weight_decay : of matrices; biases, norms and tokens have none
    accumulate : batches whose gradients make one step, each image with the same weight
    frozen_blocks : the first so many blocks, and with them the embeddings, keep their bits and run
        in evaluation mode, so that the model can share them with the one that it was pruned from;
        0 trains all
    callback : called after every epoch with its entry of the history, for loggers: on rank 0 alone,
        when the epoch is measured and its checkpoint written. An exception ends the training, on
        all ranks. A run that is resumed does not call it for epochs that were finished before

    Raises
    ------
    InvalidValueError
        A value is out of range.

    Examples
    --------
    >>> from agflow.training import TrainingOptions
    >>> TrainingOptions(accumulate=4)
    TrainingOptions(weight_decay=0.05, accumulate=4, frozen_blocks=0)
    """

    weight_decay: float = default("finetune", "weight_decay")
    accumulate: int = default("finetune", "accumulate")
    frozen_blocks: int = default("finetune", "frozen_blocks")
    callback: Callable[[dict[str, float]], object] | None = field(
        default=None, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise InvalidValueError(
                f"weight_decay is {self.weight_decay}, expected a number of at least 0"
            )
        if self.accumulate < 1:
            raise InvalidValueError(f"accumulate is {self.accumulate}, expected at least 1 batch")
        if self.frozen_blocks < 0:
            raise InvalidValueError(
                f"frozen_blocks is {self.frozen_blocks}, expected 0 or a number of blocks"
            )
        if not (self.callback is None or callable(self.callback)):
            raise InvalidValueError(
                f"callback is a {type(self.callback).__name__}, expected a function that takes an "
                "epoch's dictionary"
            )
