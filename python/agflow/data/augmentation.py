"""Augmentation: random shifts and crops of a batch, drawn from torch's CPU generator.

Shape suffixes: B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F
from torch.utils.data import default_collate

GREATEST_SHIFT = 1 / 28  # of an image's side


def shifting_batch(samples: list[tuple]) -> tuple[torch.Tensor, ...]:
    """Collate samples into a batch whose images are moved by :func:`random_shifts`.

    For ``DataLoader(…, collate_fn=shifting_batch)``.

    Parameters
    ----------
    samples : (image [C, H, W], label, …)

    Returns
    -------
    images [B, C, H, W], labels [B], …

    Examples
    --------
    >>> import torch
    >>> from agflow.data import shifting_batch
    >>> images, labels = shifting_batch([(torch.rand(3, 32, 32), label) for label in range(4)])
    >>> images.shape, labels
    (torch.Size([4, 3, 32, 32]), tensor([0, 1, 2, 3]))
    """
    images_BCHW, *others = default_collate(samples)
    return random_shifts(images_BCHW), *others


def random_shifts(images_BCHW: torch.Tensor, most: float = GREATEST_SHIFT) -> torch.Tensor:
    """Move each image by a random number of whole pixels, and mirror half of the images.

    The edge is repeated where the image has moved away. Nothing is interpolated, which would blur
    small images.

    Parameters
    ----------
    images_BCHW : float [B, C, H, W]
    most : the greatest shift as a share of a side, at least one pixel

    Returns
    -------
    images of the same shape, dtype and device

    Examples
    --------
    >>> import torch
    >>> from agflow.data import random_shifts
    >>> random_shifts(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 3, 32, 32])
    """
    height, width = images_BCHW.shape[2:]
    down, across = max(1, round(most * height)), max(1, round(most * width))
    count = len(images_BCHW)
    mirrored_B = torch.rand(count) < 0.5
    tops, lefts = (torch.randint(2 * reach + 1, (count,)).tolist() for reach in (down, across))
    seen_BCHW = torch.where(
        mirrored_B.to(images_BCHW.device)[:, None, None, None], images_BCHW.flip(-1), images_BCHW
    )
    padded_BCHW = F.pad(seen_BCHW, (across, across, down, down), mode="replicate")
    return torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, top, left in zip(padded_BCHW, tops, lefts, strict=True)
        ]
    )


def random_crops(images_BCHW: torch.Tensor, smallest: float) -> torch.Tensor:
    """Crop a random square window of each image, resize it back, and mirror half of the images.

    The window's side is uniform in [smallest, 1] of the image's, its place uniform; the resize is
    bilinear.

    Parameters
    ----------
    images_BCHW : float [B, C, H, W]
    smallest : the least side of a window, as a share of the image's, in (0, 1]

    Returns
    -------
    images of the same shape, dtype and device

    Examples
    --------
    >>> import torch
    >>> from agflow.data import random_crops
    >>> random_crops(torch.rand(2, 3, 32, 32), smallest=0.5).shape
    torch.Size([2, 3, 32, 32])
    """
    side_B, mirrored_B, place_B2 = (
        torch.rand(len(images_BCHW)),
        torch.rand(len(images_BCHW)) < 0.5,
        torch.rand(len(images_BCHW), 2),
    )
    side_B = smallest + (1 - smallest) * side_B
    window_B23 = torch.zeros(len(images_BCHW), 2, 3)
    window_B23[:, 0, 0] = torch.where(mirrored_B, -side_B, side_B)
    window_B23[:, 1, 1] = side_B
    window_B23[:, :, 2] = (1 - side_B[:, None]) * (2 * place_B2 - 1)
    grid_BHW2 = F.affine_grid(
        window_B23.to(images_BCHW), list(images_BCHW.shape), align_corners=False
    )
    return F.grid_sample(images_BCHW, grid_BHW2, padding_mode="border", align_corners=False)
