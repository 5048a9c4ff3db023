"""Loss of a fine-tuning: cross entropy, distillation and features.

Shape suffixes: B images of a batch, K classes, T tokens, D and E channels of the features of model
and teacher.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import reduce

import torch
from torch import nn
from torch.nn import functional as F

from agflow._utils.devices import device_of
from agflow._utils.hooks import temporary_hooks
from agflow.data.batches import Batch, check_labels
from agflow.errors import InvalidValueError, ShapeError
from agflow.models import model_logits
from agflow.models.last_map import tokens_of
from agflow.training.features import feature_error, last_block
from agflow.training.history import ACCURACY
from agflow.training.options import Distillation
from agflow.training.running_statistics import RunningStatistics


class Objective:
    """The loss that a fine-tuning minimises (see :class:`agflow.training.Distillation`).

    Parameters
    ----------
    model : in which :meth:`backward` leaves gradients
    distillation : None trains on labels, and by the defaults on logits that the batches bring

    Attributes
    ----------
    statistics : running statistics of the model's norms
    labelled : whether it reads labels
    measure : what the history says of it beside the loss
    """

    labelled = True
    measure = ACCURACY

    def __init__(self, model: nn.Module, distillation: Distillation | None):
        self.model = model
        self.distillation = distillation or Distillation()
        self._needs_teacher = distillation is not None
        self.statistics = RunningStatistics(model)
        self.device = device_of(model)
        # Outputs of the last blocks, model then teacher, in the forward passes since the last loss.
        self._tokens: list[torch.Tensor] = []

    def backward(self, batches: Sequence[Batch]) -> tuple[torch.Tensor, float, int]:
        """Add the gradients of the mean loss over all images of ``batches``.

        Returns
        -------
        that loss, how many images the model classifies correctly, and how many there are
        """
        losses, correct, images = [], 0, sum(len(batch.images) for batch in batches)
        for batch in batches:
            loss, of_batch = self._of_batch(batch)
            part = loss * (len(batch.images) / images)
            part.backward()
            losses.append(part.detach())
            correct += of_batch
        return reduce(operator.add, losses), correct, images

    def in_words(self, measured: float, images: str) -> str:
        """What an epoch says of some images."""
        return f"{100 * measured:.1f} % of the {images} correct"

    def _of_batch(self, batch: Batch) -> tuple[torch.Tensor, float]:
        """The mean loss of a batch, and how many images the model classifies correctly."""
        labels_B = batch.labels.to(self.device)
        with self.statistics.for_batch_of(len(batch.images)):
            logits_BK = wide(model_logits(self.model, batch.images))
        check_labels(batch.labels, logits_BK.shape[1])
        teacher_BK = self._teacher_logits(batch, logits_BK)
        loss = self._loss(logits_BK, labels_B, teacher_BK, batch.tokens)
        return loss, int((logits_BK.argmax(1) == labels_B).sum())

    @contextmanager
    def recording_tokens(self) -> Iterator[None]:
        """Record the tokens of the last blocks in forward passes, where the loss needs them."""

        def keep(block: nn.Module, inputs: tuple, output) -> None:
            if self.model.training:  # no pass over held-out images
                self._tokens.append(tokens_of(output))

        experts = (self.model, self.distillation.teacher) if self.distillation.features else ()
        blocks = [last_block(expert) for expert in experts if expert is not None]
        with temporary_hooks(block.register_forward_hook(keep) for block in blocks):
            yield

    @torch.no_grad()
    def _teacher_logits(self, batch: Batch, logits_BK: torch.Tensor) -> torch.Tensor | None:
        """The logits that the batch brings, else the teacher's [B, K]; None without a teacher."""
        teacher = self.distillation.teacher
        if batch.logits is None:
            if teacher is not None:
                return wide(model_logits(teacher, batch.images)).to(self.device)
            if self._needs_teacher:
                raise InvalidValueError(
                    "the distillation has no teacher and a batch brings no logits of one: pass "
                    "Distillation(teacher), batches of CachedViews, or distillation=None"
                )
            return None
        if teacher is not None:
            raise InvalidValueError(
                "the batches bring a teacher's logits and a teacher was passed, too: "
                "leave teacher out, or the logits"
            )
        if batch.logits.shape != logits_BK.shape:
            raise ShapeError(
                f"the teacher's logits of a batch are {list(batch.logits.shape)}, the model's "
                f"{list(logits_BK.shape)}, expected the same: "
                "cache logits of a teacher of the same classes"
            )
        return wide(batch.logits).to(self.device)

    def _loss(
        self,
        logits_BK: torch.Tensor,
        labels_B: torch.Tensor,
        teacher_BK: torch.Tensor | None,
        tokens_BTD: torch.Tensor | None,
    ) -> torch.Tensor:
        hard = F.cross_entropy(logits_BK, labels_B)
        if teacher_BK is None:
            return hard
        share, temperature = self.distillation.share, self.distillation.temperature
        soft = F.kl_div(
            F.log_softmax(logits_BK / temperature, dim=1),
            F.log_softmax(teacher_BK / temperature, dim=1),
            log_target=True,
            reduction="batchmean",
        )
        loss = (1 - share) * hard + share * temperature**2 * soft
        features = self.distillation.features
        return loss + features * self.feature_term(tokens_BTD) if features else loss

    def feature_term(self, tokens_BTD: torch.Tensor | None) -> torch.Tensor:
        """The error of the features that were recorded (:func:`feature_error`).

        Parameters
        ----------
        tokens_BTD : the teacher's, where the batch brings them
        """
        if tokens_BTD is not None:
            self._tokens.append(tokens_BTD.to(self.device))
        if len(self._tokens) < 2:
            raise InvalidValueError(
                f"features is {self.distillation.features}, but there is no teacher whose features "
                "to learn: pass Distillation(teacher), or batches of CachedViews with tokens"
            )
        features_BTD, teacher_BTE = map(wide, self._tokens)
        self._tokens.clear()
        return feature_error(features_BTD, teacher_BTE)


def wide(x: torch.Tensor) -> torch.Tensor:
    """In float32 at least: a loss in sixteen bits would round, and model and teacher may differ."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
