"""Distillation from a teacher whose logits are cached, and how light experts are distilled.

Shape suffixes: N images in all, B images of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn

from agflow._utils.defaults import default
from agflow.data.augmentation import random_crops
from agflow.data.leakage import ImageSketch
from agflow.errors import EmptyError, InvalidValueError, ShapeError
from agflow.models.passes import LABELS, run_models
from agflow.training.finetuning import finetune
from agflow.training.options import Checkpointing, Distillation, TrainingOptions

# How light experts are distilled, all in one place.
LR = default("design", "lr")
CACHED_LOGITS = Distillation(share=default("design", "distill"))
SMALLEST_CROP = 0.75
BATCH_SIZE = default("common", "batch_size")


class CachedTeacher:
    """Shuffled, lightly augmented batches that bring the cached logits of a teacher.

    A batch is (images float32 [B, C, H, W], labels int64 [B], logits float32 [B, K]). The teacher
    has classified each image once, without augmentation. An epoch shows a random crop of it,
    mirrored half the time (:func:`agflow.data.augmentation.random_crops`), next to these logits.
    All draws are from torch's CPU generator, which :func:`agflow.finetune` seeds.

    Parameters
    ----------
    images_NCHW : as the models take them, of any floating type, in memory
    labels_N : int64
    logits_NK : of the teacher
    batch_size : images of a batch; the last one of an epoch may be smaller
    smallest_crop : least side of a crop, as a share of the image's; 1 leaves only the mirroring

    Raises
    ------
    EmptyError
        There is no image.
    ShapeError
        The three differ in length.
    InvalidValueError
        The batch size is below 1, or the smallest crop not in (0, 1].

    Examples
    --------
    >>> import torch
    >>> from agflow.training import CachedTeacher
    >>> batches = CachedTeacher(
    ...     torch.zeros(5, 3, 8, 8), torch.arange(5), torch.zeros(5, 10), batch_size=2
    ... )
    >>> len(batches), [tuple(part.shape) for part in next(iter(batches))]
    (3, [(2, 3, 8, 8), (2,), (2, 10)])
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
                f"there are {len(images_NCHW)} images, {len(labels_N)} labels and "
                f"{len(logits_NK)} rows of logits, expected as many of each"
            )
        if len(images_NCHW) == 0:
            raise EmptyError(
                "there is no image to cache logits of; expected at least one: "
                "check the dataset's length and limit"
            )
        if batch_size < 1 or not 0 < smallest_crop <= 1:
            raise InvalidValueError(
                f"batch_size is {batch_size} and smallest_crop {smallest_crop}, "
                "expected at least 1 and a share in (0, 1]"
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
        batch_size: int = BATCH_SIZE,
        smallest_crop: float = SMALLEST_CROP,
    ) -> CachedTeacher:
        """Run ``teacher`` once over the images of ``loader`` and cache its logits.

        Parameters
        ----------
        loader : batches of (images [B, C, H, W], labels [B]), see :mod:`agflow.data.batches`.
            Images are kept on the CPU in half precision, which separates all 256 levels of a pixel
            at half the memory: 0.3 MB for 3 x 224 x 224.
        sketch : gets the images, too
        batch_size, smallest_crop : of the constructor

        Raises
        ------
        AgflowError
            As :func:`agflow.evaluation.logits`: no image, a batch of another form, labels that are
            no classes of the teacher, logits that are not finite.
        """

        def rows_of(images_BCHW: torch.Tensor) -> dict[str, torch.Tensor]:
            if sketch is not None:
                sketch.add(images_BCHW)
            return {"images": images_BCHW.cpu().half()}

        rows = run_models({"teacher": teacher}, loader, description="teacher", rows_of=rows_of)
        return cls(
            rows["images"],
            rows[LABELS],
            rows["teacher"],
            batch_size=batch_size,
            smallest_crop=smallest_crop,
        )

    def __len__(self) -> int:
        return math.ceil(len(self.images) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for rows in torch.randperm(len(self.images)).split(self.batch_size):
            yield (
                random_crops(self.images[rows].float(), self.smallest_crop),
                self.labels[rows],
                self.logits[rows],
            )

    def __repr__(self) -> str:
        count, classes = self.logits.shape
        return f"<agflow.CachedTeacher: {count} images, {classes} classes, {len(self)} batches>"

    def plain(self, images: int | None = None) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Batches (images float32, labels) of the first ``images`` in order, not augmented."""
        pairs = zip(
            self.images[:images].split(self.batch_size),
            self.labels[:images].split(self.batch_size),
            strict=True,
        )
        return [(x.float(), labels) for x, labels in pairs]


def distill(
    light: nn.Module,
    batches: CachedTeacher,
    *,
    epochs: int,
    lr: float = LR,
    frozen_blocks: int = default("finetune", "frozen_blocks"),
    checkpointing: Checkpointing | None = None,
    seed: int = default("common", "seed"),
) -> list[dict[str, float]]:
    """Fine-tune ``light`` in place on the cached logits of a teacher.

    Half of the loss is cross entropy, half distillation at temperature 2
    (:class:`agflow.training.Distillation`).

    Parameters
    ----------
    frozen_blocks : of :class:`agflow.training.TrainingOptions`
    epochs, lr, checkpointing, seed : of :func:`agflow.finetune`

    Returns
    -------
    one dict per epoch, as :func:`agflow.finetune` does

    Raises
    ------
    AgflowError
        As :func:`agflow.finetune`.

    Examples
    --------
    >>> import timm, torch
    >>> from agflow.training import CachedTeacher, distill
    >>> vit = lambda depth: timm.create_model(
    ...     "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=depth, num_classes=4
    ... )
    >>> teacher = CachedTeacher.of(vit(2), [(torch.randn(4, 3, 32, 32), torch.arange(4))])
    >>> teacher
    <agflow.CachedTeacher: 4 images, 4 classes, 1 batches>
    >>> len(distill(vit(1), teacher, epochs=2))
    2
    """
    return finetune(
        light,
        batches,
        epochs=epochs,
        lr=lr,
        distillation=CACHED_LOGITS,
        checkpointing=checkpointing,
        options=TrainingOptions(frozen_blocks=frozen_blocks),
        seed=seed,
    )
