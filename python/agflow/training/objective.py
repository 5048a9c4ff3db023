"""Loss of a fine-tuning: cross entropy, distillation and token features.

Shape suffixes: B images of a batch, C channels, H height, W width, K classes, T tokens, D channels
of the residual stream.
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
from agflow.errors import InvalidValueError, ShapeError, UnsupportedModelError
from agflow.models import adapter_for, model_logits
from agflow.training.options import Distillation


class Objective:
    """The loss that a fine-tuning minimises (see :class:`agflow.training.Distillation`).

    Parameters
    ----------
    model : in which :meth:`backward` leaves gradients
    distillation : None trains on labels, and by the defaults on logits that the batches bring
    """

    def __init__(self, model: nn.Module, distillation: Distillation | None):
        self.model = model
        self.distillation = distillation or Distillation()
        self._needs_teacher = distillation is not None
        self._device = device_of(model)
        # Outputs of the last blocks, model then teacher, in the forward passes since the last loss.
        self._tokens: list[torch.Tensor] = []

    def backward(self, batches: Sequence[Batch]) -> tuple[torch.Tensor, int, int]:
        """Add the gradients of the mean loss over all images of ``batches``.

        Returns
        -------
        that loss, how many images the model classifies correctly, and how many there are
        """
        losses, correct, images = [], 0, sum(len(batch.labels) for batch in batches)
        for batch in batches:
            labels_B = batch.labels.to(self._device)
            logits_BK = _wide(model_logits(self.model, batch.images))
            check_labels(batch.labels, logits_BK.shape[1])
            teacher_BK = self._teacher_logits(batch, logits_BK)
            share = len(labels_B) / images
            part = self._loss(logits_BK, labels_B, teacher_BK, batch.tokens) * share
            part.backward()
            losses.append(part.detach())
            correct += int((logits_BK.argmax(1) == labels_B).sum())
        return reduce(operator.add, losses), correct, images

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
                return _wide(model_logits(teacher, batch.images)).to(self._device)
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
        return _wide(batch.logits).to(self._device)

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
        return loss + features * self._token_error(tokens_BTD) if features else loss

    def _token_error(self, tokens_BTD: torch.Tensor | None) -> torch.Tensor:
        """Mean squared error between the normalised tokens of model and teacher.

        Parameters
        ----------
        tokens_BTD : the teacher's, where the batch brings them
        """
        if tokens_BTD is not None:
            self._tokens.append(tokens_BTD.to(self._device))
        if len(self._tokens) < 2:
            raise InvalidValueError(
                f"features is {self.distillation.features}, but there is no teacher whose features "
                "to learn: pass Distillation(teacher), or batches of CachedViews with tokens"
            )
        student_BTD, teacher_BTD = map(_wide, self._tokens)
        self._tokens.clear()
        if student_BTD.shape != teacher_BTD.shape:
            raise ShapeError(
                f"the last block of the model puts out {list(student_BTD.shape)}, that of the "
                f"teacher {list(teacher_BTD.shape)}, expected the same shape: "
                "leave features out, or take a teacher as wide as the model"
            )
        width = student_BTD.shape[-1:]
        return F.mse_loss(F.layer_norm(student_BTD, width), F.layer_norm(teacher_BTD, width))


def last_block(model: nn.Module) -> nn.Module:
    """The block that holds the last prunable layer.

    It is a member of the outermost ``nn.Sequential`` or ``nn.ModuleList`` around that layer.

    Raises
    ------
    UnsupportedModelError
        No adapter handles the model, or its blocks are in no such list.
    """
    path = adapter_for(model).layers(model)[-1].name.split(".")
    for depth in range(1, len(path) + 1):
        parent = model.get_submodule(".".join(path[: depth - 1]))
        if isinstance(parent, (nn.ModuleList, nn.Sequential)):
            return model.get_submodule(".".join(path[:depth]))
    raise UnsupportedModelError(
        f"the blocks of {type(model).__name__} stand in no nn.Sequential or nn.ModuleList, "
        "so the last one is unknown: leave features out"
    )


def has_last_block(model: nn.Module) -> bool:
    """Whether :func:`last_block` finds one."""
    try:
        last_block(model)
    except UnsupportedModelError:
        return False
    return True


def tokens_of(output: torch.Tensor | tuple) -> torch.Tensor:
    """The tokens that a block puts out; blocks of transformers put out tuples."""
    return output[0] if isinstance(output, tuple) else output


def _wide(x: torch.Tensor) -> torch.Tensor:
    """In float32 at least: a loss in sixteen bits would round, and model and teacher may differ."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
