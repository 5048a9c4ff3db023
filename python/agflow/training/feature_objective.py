"""Fine-tuning of a model without a classifier: it learns the features of its teacher.

Shape suffixes: B images of a batch, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from agflow.data.batches import Batch, image_batches
from agflow.errors import InvalidValueError, UnsupportedModelError
from agflow.models import Head, adapter_for, final_hidden, head_of, model_name
from agflow.models.passes import Rows, joined_rows
from agflow.training.features import feature_error
from agflow.training.history import COSINE
from agflow.training.objective import Objective, wide
from agflow.training.options import Distillation

COSINES = "cosines"
_HEADLESS = Head((), 0, "features")


def objective_of(model: nn.Module, distillation: Distillation | None) -> Objective:
    """What a fine-tuning minimises: that of features for a model that has no classifier."""
    try:
        headless = adapter_for(model).class_count(model) == 0
    except UnsupportedModelError:  # no adapter, or images have not said its size: it has logits
        headless = False
    return (FeatureObjective if headless else Objective)(model, distillation)


class FeatureObjective(Objective):
    """The squared error of the features, of the teacher's squared length: mean |h - t|² / |t|².

    Where the model's are narrower than the teacher's, :func:`feature_error` compares them. The
    share and the temperature of the distillation play no part; its ``features`` weigh the error
    of the last blocks beside it, as for a classifier. Labels are not read.

    Raises
    ------
    InvalidValueError
        There is no teacher.
    """

    labelled = False
    measure = COSINE

    def __init__(self, model: nn.Module, distillation: Distillation | None):
        super().__init__(model, distillation)
        if self.distillation.teacher is None:
            raise InvalidValueError(
                f"{model_name(model)} has no classifier, so that it can learn only the features of "
                "a teacher, and there is none: pass distillation=Distillation(dense)"
            )
        self.teacher = self.distillation.teacher
        self._teachers_head: Head | None = None

    def in_words(self, measured: float, images: str) -> str:
        return f"features of the {images} at cosine {measured:.4f} to the teacher's"

    def _of_batch(self, batch: Batch) -> tuple[torch.Tensor, float]:
        """The mean loss of a batch, and the sum of the cosines."""
        with self.statistics.for_batch_of(len(batch.images)):
            hidden = wide(final_hidden(self.model, batch.images, _HEADLESS))
        with torch.no_grad():
            if self._teachers_head is None:
                self._teachers_head = head_of(self.teacher, batch.images)
            taught = wide(final_hidden(self.teacher, batch.images, self._teachers_head))
        taught = taught.to(self.device)
        features = self.distillation.features
        loss = _error(hidden, taught)
        if features:
            loss = loss + features * self.feature_term(batch.tokens)
        return loss, float(_cosines(hidden.detach(), taught).sum())


def cosine_rows(
    model: nn.Module, teacher: nn.Module, loader: Iterable, rows_of: Callable[..., Rows]
) -> Rows:
    """Of every image the cosine between the features of model and teacher, and further rows.

    Parameters
    ----------
    rows_of : makes further rows from the images of a batch
    """

    def of_batches(batches: Iterable) -> Iterator[Rows]:
        head = None
        for images_BCHW in image_batches(batches, "held out"):
            head = head or head_of(teacher, images_BCHW)
            hidden = final_hidden(model, images_BCHW, _HEADLESS).float().cpu()
            taught = final_hidden(teacher, images_BCHW, head).float().cpu()
            yield {COSINES: _cosines(hidden, taught)} | rows_of(images_BCHW)

    return joined_rows([model, teacher], loader, of_batches)


def _error(hidden: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    if hidden.shape != taught.shape:
        return feature_error(*(x if x.ndim > 2 else x[:, None] for x in (hidden, taught)))
    hidden_BF, taught_BF = hidden.flatten(1), taught.flatten(1)
    least = torch.finfo(taught_BF.dtype).tiny
    squares_B = taught_BF.square().sum(1).clamp_min(least)
    return ((hidden_BF - taught_BF).square().sum(1) / squares_B).mean()


def _cosines(hidden: torch.Tensor, taught: torch.Tensor) -> torch.Tensor:
    """The cosine of the features of each image [B]; 0 where they differ in their number."""
    if hidden.shape != taught.shape:
        return torch.zeros(len(hidden))
    return F.cosine_similarity(hidden.flatten(1).double(), taught.flatten(1).double())
