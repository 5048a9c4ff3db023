"""Other views of the same images, which a light expert learns from; all draws are from torch's CPU generator.

Shape suffixes: B images of a batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F
from torch.utils.data import default_collate

SHIFT = 1 / 28  # of an image's side


def shifting_batch(samples: Sequence[tuple]) -> tuple[torch.Tensor, ...]:
    """A batch of ``samples`` (image [C, H, W], and what else belongs to it), its images [B, C, H, W] under :func:`random_shifts`.

    It is for ``DataLoader(…, collate_fn=shifting_batch)``.
    """
    images_BCHW, *others = default_collate(samples)
    return random_shifts(images_BCHW), *others


def random_shifts(images_BCHW: torch.Tensor, most: float = SHIFT) -> torch.Tensor:
    """Each image [C, H, W] moved by whole pixels, up to ``most`` of a side and at least up to one pixel, mirrored half the time.

    The edge is repeated where the image has moved away. Nothing is interpolated, which would blur
    small images.
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
    """Each image [C, H, W] through a square window of its own, brought back to its size bilinearly, mirrored half the time.

    The side of a window is uniform in [smallest, 1] of the image's, its place uniform.
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
