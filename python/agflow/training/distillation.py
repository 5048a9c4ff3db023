"""A teacher's answers remembered, so that it looks at every image once and not once an epoch; and how light experts are distilled.

Shape suffixes: N images in all, B images of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from agflow._utils.loaders import batches_of
from agflow._utils.modes import preserve_training_mode
from agflow.data.augmentation import random_crops
from agflow.data.leakage import ImageSketch
from agflow.errors import EmptyError, InvalidValueError, ShapeError
from agflow.models import logits_of
from agflow.training.finetuning import finetune
from agflow.training.options import Distillation, TrainingOptions

# How light experts are distilled, all in one place.
LR = 1e-4
DISTILL = 0.5
TEMPERATURE = 2.0
SMALLEST_CROP = 0.75
BATCH_SIZE = 32


class CachedTeacher:
    """Shuffled, lightly augmented batches (images float32 [B, C, H, W], labels int64 [B], teacher's logits float32 [B, K]).

    A teacher has seen each image once, as it is. An epoch shows it through a window of its own and mirrored half the time
    (:func:`random_crops`), beside what the teacher said of the whole. All draws are from torch's CPU generator, which
    :func:`agflow.finetune` seeds.

    Parameters
    ----------
    images_NCHW : as the models take them, of any floating type, in memory
    labels_N : int64
    logits_NK : of the teacher
    smallest_crop : least side of a window, as a share of the image's; 1 leaves only the mirroring

    Raises
    ------
    EmptyError
        There is no image.
    ShapeError
        The three differ in length.
    InvalidValueError
        The batch size is below 1, or the window not in (0, 1].
    """

    def __init__(
        self,
        images_NCHW: torch.Tensor,
        labels_N: torch.Tensor,
        logits_NK: torch.Tensor,
        *,
        batch_size: int = BATCH_SIZE,
        smallest_crop: float = SMALLEST_CROP,
    ):
        if not len(images_NCHW) == len(labels_N) == len(logits_NK):
            raise ShapeError(
                f"there are {len(images_NCHW)} images, {len(labels_N)} labels and {len(logits_NK)} rows of logits, expected as many of each"
            )
        if len(images_NCHW) == 0:
            raise EmptyError(
                "there is no image to remember; expected at least one: check the dataset's length and limit"
            )
        if batch_size < 1 or not 0 < smallest_crop <= 1:
            raise InvalidValueError(
                f"batch_size is {batch_size} and smallest_crop {smallest_crop}, expected at least 1 and a share in (0, 1]"
            )
        self.images, self.labels, self.logits = images_NCHW, labels_N, logits_NK
        self.batch_size, self.smallest_crop = batch_size, smallest_crop

    @classmethod
    def of(
        cls,
        teacher: nn.Module,
        loader: Iterable,
        *,
        sketch: ImageSketch | None = None,
        **options,
    ) -> CachedTeacher:
        """Everything ``loader`` gives, gone through once, and what ``teacher`` says of it.

        Parameters
        ----------
        loader : of (images float32 [B, C, H, W], labels int64 [B]). Images are kept on the CPU in half precision, which
            tells apart all 256 levels of a pixel at half the memory: 0.3 MB for 3 x 224 x 224.
        sketch : is given the images, too
        options : of the constructor
        """
        seen = []
        device = next(teacher.parameters()).device
        with preserve_training_mode(teacher), torch.inference_mode():
            teacher.eval()
            for x, labels in batches_of(loader, "teacher"):
                if sketch is not None:
                    sketch.add(x)
                seen.append(
                    (x.cpu().half(), labels.cpu(), logits_of(teacher(x.to(device))).float().cpu())
                )
        return cls(*(torch.cat(parts) for parts in zip(*seen, strict=True)), **options)

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for rows in torch.randperm(len(self.images)).split(self.batch_size):
            yield (
                random_crops(self.images[rows].float(), self.smallest_crop),
                self.labels[rows],
                self.logits[rows],
            )

    def plain(self, images: int | None = None) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Batches (images float32, labels) of the first ``images`` as they are, for measuring and repairing."""
        pairs = zip(
            self.images[:images].split(self.batch_size),
            self.labels[:images].split(self.batch_size),
            strict=True,
        )
        return [(x.float(), labels) for x, labels in pairs]


def distill(
    light: nn.Module,
    remembered: CachedTeacher,
    *,
    epochs: int,
    lr: float = LR,
    frozen_blocks: int = 0,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Fine-tune ``light`` in place on what a teacher said, by the settings of this module; returns what :func:`agflow.finetune` does."""
    return finetune(
        light,
        remembered,
        epochs=epochs,
        lr=lr,
        distillation=Distillation(share=DISTILL, temperature=TEMPERATURE),
        options=TrainingOptions(frozen_blocks=frozen_blocks),
        seed=seed,
    )
