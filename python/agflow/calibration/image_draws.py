"""Random draws for images that go by a seed and their pixels alone.

They are the same in every batch, order and process. Shape suffixes: B images, F features.
"""

from __future__ import annotations

import hashlib

import torch

from agflow._utils.tensors import raw_bytes


def uniform_draws(images_BCHW: torch.Tensor, seed: int) -> torch.Tensor:
    """Draw a number in [0, 1) for each image.

    Returns
    -------
    float64 [B], on the CPU

    Examples
    --------
    >>> import torch
    >>> from agflow.calibration.image_draws import uniform_draws
    >>> images = torch.rand(3, 1, 4, 4)
    >>> torch.equal(uniform_draws(images.flip(0), 0), uniform_draws(images, 0).flip(0))
    True
    """
    numbers = [(number >> 11) * 2.0**-53 for number in _numbers(images_BCHW, seed)]
    return torch.tensor(numbers, dtype=torch.float64)


def directions(images_BCHW: torch.Tensor, features: int, seed: int) -> torch.Tensor:
    """Draw a direction for each image, all of them equally likely.

    Returns
    -------
    float32 [B, features] of length 1, on the CPU

    Examples
    --------
    >>> import torch
    >>> from agflow.calibration.image_draws import directions
    >>> drawn = directions(torch.rand(3, 1, 4, 4), features=8, seed=0)
    >>> drawn.shape, torch.allclose(drawn.norm(dim=1), torch.ones(3))
    (torch.Size([3, 8]), True)
    """
    drawn = [
        torch.randn(features, generator=torch.Generator().manual_seed(number & (2**63 - 1)))
        for number in _numbers(images_BCHW, seed)
    ]
    return torch.nn.functional.normalize(torch.stack(drawn), dim=1)


def _numbers(images_BCHW: torch.Tensor, seed: int) -> list[int]:
    """A number of 64 bits for each image that looks like a random one."""
    found = []
    # From float32: the images of a loader in another type are still these images.
    for image in images_BCHW.detach().float():
        digest = hashlib.sha256(b"%d\n" % seed)
        digest.update(raw_bytes(image))
        found.append(int.from_bytes(digest.digest()[:8], "little"))
    return found
