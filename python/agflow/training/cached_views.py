"""Distillation on a fixed set of views of the images, each with the teacher's own answer to it.

Shape suffixes: V views, N images, B images of a batch, C channels, H height, W width, K classes,
T tokens, D channels of the residual stream.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from agflow._utils.defaults import default
from agflow._utils.devices import device_of
from agflow._utils.hooks import temporary_hooks
from agflow.data.batches import Batch, labelled_batches
from agflow.errors import InvalidValueError, ShapeError
from agflow.models.last_map import tokens_of
from agflow.models.passes import LABELS, Rows, run_models
from agflow.training.features import last_block
from agflow.training.replay import seeded

BATCH_SIZE = default("common", "batch_size")


class CachedViews:
    """Shuffled batches of augmented images that bring the teacher's answers to these very views.

    The teacher answers each view once, before the training, however many epochs and models learn
    from it. An epoch shows every image once, in one of its views, drawn at random. All draws are
    from torch's CPU generator, which :func:`agflow.finetune` seeds.

    A batch is an :class:`agflow.data.Batch`: images float32 [B, C, H, W], labels, logits [B, K]
    and, where the views have them, the tokens of the teacher's last block [B, T, D] (of maps, the
    positions), for ``Distillation(features=…)``.

    Parameters
    ----------
    images_VNCHW : as the models take them, of any floating type, in memory
    labels_N : int64
    logits_VNK : of the teacher
    tokens_VNTD : of the teacher's last block; None leaves them out
    batch_size : images of a batch; the last one of an epoch may be smaller

    Raises
    ------
    ShapeError
        The parts differ in views or images, or there is none.
    InvalidValueError
        The batch size is below 1.

    Examples
    --------
    >>> import torch
    >>> from agflow.training import CachedViews
    >>> views = CachedViews(
    ...     torch.zeros(2, 5, 3, 8, 8), torch.arange(5), torch.zeros(2, 5, 10), batch_size=2
    ... )
    >>> views, len(views), next(iter(views)).logits.shape
    (<agflow.CachedViews: 2 views of 5 images, 10 classes>, 3, torch.Size([2, 10]))
    """

    def __init__(
        self,
        images_VNCHW: torch.Tensor,
        labels_N: torch.Tensor,
        logits_VNK: torch.Tensor,
        tokens_VNTD: torch.Tensor | None = None,
        *,
        batch_size: int = BATCH_SIZE,
    ):
        parts = [images_VNCHW, logits_VNK, *([] if tokens_VNTD is None else [tokens_VNTD])]
        shapes = [tuple(part.shape[:2]) for part in parts]
        if len({*shapes}) > 1 or shapes[0][1] != len(labels_N) or 0 in shapes[0]:
            raise ShapeError(
                f"views and images of the parts are {shapes} with {len(labels_N)} labels, expected "
                "the same number of both, at least one"
            )
        if batch_size < 1:
            raise InvalidValueError(f"batch_size is {batch_size}, expected at least 1")
        self.images, self.labels = images_VNCHW, labels_N
        self.logits, self.tokens = logits_VNK, tokens_VNTD
        self.batch_size = batch_size

    @classmethod
    def of(
        cls,
        teacher: nn.Module,
        loader: Iterable,
        *,
        views: int,
        tokens: bool = False,
        batch_size: int = BATCH_SIZE,
        seed: int = default("common", "seed"),
    ) -> CachedViews:
        """Run ``teacher`` over ``views`` passes of ``loader`` and keep what it answers.

        Images and tokens are kept on the CPU in half precision; see :func:`bytes_an_image`.

        Parameters
        ----------
        loader : batches of (images [B, C, H, W], labels [B]) in the same order in every pass, each
            time augmented anew: ``DataLoader(…, collate_fn=agflow.data.shifting_batch)``
        tokens : keep those of the teacher's last block, too, each normalised to mean 0 and variance
            1
        batch_size : of the constructor
        seed : of the augmentation

        Raises
        ------
        InvalidValueError
            ``views`` is below 1, or a pass has other labels than the first one: it is shuffled.
        AgflowError
            As :func:`agflow.evaluation.logits`; for ``tokens`` no adapter knows the last block.
        """
        if views < 1:
            raise InvalidValueError(f"views is {views}, expected at least 1")
        with seeded(seed, device_of(teacher)):
            passes = [
                _answers(teacher, loader, tokens, f"view {v + 1}/{views}") for v in range(views)
            ]
        if not all(torch.equal(rows[LABELS], passes[0][LABELS]) for rows in passes):
            raise InvalidValueError(
                "the loader gave the labels in another order in its second pass, expected the same "
                "images in the same order: pass a DataLoader with shuffle=False"
            )
        names = ("images", "teacher", "tokens") if tokens else ("images", "teacher")
        with torch.autocast("cpu", enabled=False):  # it widens what is stacked, but not half
            joined = {name: torch.stack([rows.pop(name) for rows in passes]) for name in names}
        return cls(
            joined["images"],
            passes[0][LABELS],
            joined["teacher"],
            joined.get("tokens"),
            batch_size=batch_size,
        )

    def __len__(self) -> int:
        return math.ceil(len(self.labels) / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        order_N = torch.randperm(len(self.labels))
        views_N = torch.randint(len(self.images), (len(self.labels),))
        for rows_B in order_N.split(self.batch_size):
            views_B = views_N[rows_B]
            yield Batch(
                self.images[views_B, rows_B].float(),
                self.labels[rows_B],
                self.logits[views_B, rows_B],
                None if self.tokens is None else self.tokens[views_B, rows_B].float(),
            )

    def __repr__(self) -> str:
        views, images, classes = self.logits.shape
        return f"<agflow.CachedViews: {views} views of {images} images, {classes} classes>"


def _answers(teacher: nn.Module, loader: Iterable, tokens: bool, description: str) -> Rows:
    """What the teacher answers to one view of the images, and the view, in half precision."""
    kept: list[torch.Tensor] = []

    def rows_of(images_BCHW: torch.Tensor) -> Rows:
        rows = {"images": images_BCHW.cpu().half()}
        return {**rows, "tokens": _normalised(kept.pop())} if tokens else rows

    keep = lambda block, inputs, output: kept.append(tokens_of(output))
    hooks = [last_block(teacher).register_forward_hook(keep)] if tokens else []
    with temporary_hooks(hooks):
        return run_models({"teacher": teacher}, loader, description=description, rows_of=rows_of)


def _normalised(tokens_BTD: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(tokens_BTD.float(), tokens_BTD.shape[-1:]).cpu().half()


def bytes_an_image(teacher: nn.Module, loader: Iterable, *, tokens: bool) -> int:
    """Memory that a view of an image takes, found by a pass over the first batch of ``loader``.

    Examples
    --------
    >>> import agflow, torch
    >>> from agflow.training.cached_views import bytes_an_image
    >>> model, _, _ = agflow.load_model("example")
    >>> bytes_an_image(model, [(torch.zeros(2, 1, 28, 28), torch.arange(2))], tokens=True)
    14408
    """
    first = [next(labelled_batches(loader))]
    rows = _answers(teacher, first, tokens, "")
    return sum(
        part[0].numel() * part.element_size() for name, part in rows.items() if name != LABELS
    )
