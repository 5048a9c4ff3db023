"""Images per second of contenders that take turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from agflow.evaluation.interleaved import interleaved


@dataclass(frozen=True)
class Timing:
    """Seconds of each round of one contender, and the images a round handles."""

    seconds: tuple[float, ...]
    images: int

    @property
    def images_per_second(self) -> float:
        return self.images / statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """Slowest and fastest round, in images per second."""
        return self.images / max(self.seconds), self.images / min(self.seconds)


def first_images(dataset: Dataset, most: int) -> torch.Tensor:
    """Up to ``most`` images of a dataset of (image, label), [N, C, H, W]."""
    return torch.stack([dataset[i][0] for i in range(min(most, len(dataset)))])


@torch.inference_mode()
def race(
    contenders: Mapping[str, Callable[[torch.Tensor], object]],
    x: torch.Tensor,
    *,
    batch: int,
    rounds: int = 5,
) -> dict[str, Timing]:
    """Time every contender on the same images, round by round in turn, so that drift hits all alike.

    Parameters
    ----------
    x : float32 [N, C, H, W]
    batch : images per call
    """
    batches = x.split(batch)

    def round_of(call: Callable[[torch.Tensor], object]) -> Callable[[], None]:
        def run() -> None:
            for piece in batches:
                call(piece)

        return run

    times = interleaved({name: round_of(call) for name, call in contenders.items()}, rounds=rounds)
    return {name: Timing(t.seconds, len(x)) for name, t in times.items()}
