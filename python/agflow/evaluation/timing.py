"""Times of contenders that take turns, so that drift of the machine affects all of them alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

import torch
from torch import nn
from torch.utils.data import Dataset

from agflow._utils.modes import evaluating
from agflow.models import as_module
from agflow.models.forward import as_taken

Name = TypeVar("Name", bound=Hashable)

GAIN, LOSS, NOISY = "gain", "loss", "too noisy to tell"
_LEAST_SECONDS = 0.03
_PAUSE_SECONDS = 0.02
_CHANCE = 1 / 16
_LEAST_DIFFERENCE = 0.01


class Ratios(NamedTuple):
    """Ratios of two contenders' times over the rounds."""

    median: float
    min: float
    max: float


class Speed(NamedTuple):
    """Images per second of one contender as a ratio of another's, timed in the same rounds.

    The ratios of a round are compared, not the spreads of all rounds: contenders of a round take
    turns, so that a machine that slows down slows both. The finding is a two-sided sign test: it is
    ``"too noisy to tell"`` where equally fast contenders would agree in as many rounds with a
    chance above 1 in 16. So all of 5 rounds must agree, 8 of 9, and fewer than 5 tell nothing.
    Speeds that differ by less than 1 % are not told apart either: the place of a model in memory
    makes more of a difference.

    Attributes
    ----------
    speed, slowest, fastest : median, least and greatest ratio of the rounds
    finding : ``"gain"`` (more images per second), ``"loss"`` or ``"too noisy to tell"``

    Examples
    --------
    >>> from agflow.evaluation import Timing
    >>> heavy, light = Timing((1.0, 1.1, 3.0, 1.0, 1.0)), Timing((0.5, 0.5, 1.5, 0.6, 0.5))
    >>> light.speed_over(heavy).finding, Timing((1.0,)).speed_over(Timing((9.0,))).finding
    ('gain', 'too noisy to tell')
    """

    speed: float
    slowest: float
    fastest: float
    finding: str

    @classmethod
    def of(cls, ratios: Sequence[float]) -> Speed:
        """Summarise the ratios of all rounds."""
        speed = statistics.median(ratios)
        agreeing = sum(ratio > 1 if speed > 1 else ratio < 1 for ratio in ratios)
        rounds = len(ratios)
        by_chance = sum(math.comb(rounds, k) for k in range(agreeing, rounds + 1)) / 2**rounds
        finding = GAIN if speed > 1 else LOSS
        if 2 * by_chance > _CHANCE or abs(speed - 1) < _LEAST_DIFFERENCE:
            finding = NOISY
        return cls(speed, min(ratios), max(ratios), finding)


@dataclass(frozen=True)
class Timing:
    """Measured times of one contender.

    Attributes
    ----------
    seconds : of one call, one entry a round
    images : handled by one call

    Examples
    --------
    >>> from agflow.evaluation import Timing
    >>> timing = Timing((0.5, 0.25, 0.2), images=10)
    >>> timing
    <agflow.Timing: 40.0 images/s (20.0 to 50.0), 3 rounds>
    >>> timing.over(Timing((1.0, 1.0, 1.0), images=10))
    Ratios(median=0.25, min=0.2, max=0.5)
    """

    seconds: tuple[float, ...]
    images: int = 1

    @property
    def median(self) -> float:
        """Median of the rounds, seconds."""
        return statistics.median(self.seconds)

    @property
    def images_per_second(self) -> float:
        """Images per second, median of the rounds."""
        return self.images / self.median

    @property
    def spread(self) -> tuple[float, float]:
        """Slowest and fastest round, in images per second."""
        return self.images / max(self.seconds), self.images / min(self.seconds)

    def over(self, other: Timing) -> Ratios:
        """How many times as long as ``other`` a call took, round by round."""
        ratios = [mine / theirs for mine, theirs in zip(self.seconds, other.seconds, strict=True)]
        return Ratios(statistics.median(ratios), min(ratios), max(ratios))

    def speed_over(self, other: Timing) -> Speed:
        """How many times as many images a second as ``other``, round by round."""
        pairs = zip(self.seconds, other.seconds, strict=True)
        share = self.images / other.images
        return Speed.of([share * theirs / mine for mine, theirs in pairs])

    def __repr__(self) -> str:
        slowest, fastest = self.spread
        return (
            f"<agflow.Timing: {self.images_per_second:.1f} images/s "
            f"({slowest:.1f} to {fastest:.1f}), {len(self.seconds)} rounds>"
        )


def interleaved(
    contenders: Mapping[Name, Callable[[], object]],
    *,
    rounds: int,
    images: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    least_seconds: float = _LEAST_SECONDS,
    pause_seconds: float = _PAUSE_SECONDS,
) -> dict[Name, Timing]:
    """Time every contender in turn, round by round, after one call that warms it up.

    Parameters
    ----------
    images : that one call handles
    clock : seconds; ``time.perf_counter`` for wall-clock, ``time.process_time`` for CPU time
    least_seconds : of one measurement: shorter calls are repeated
    pause_seconds : before each measurement, so that threads of the contender before stop spinning

    Examples
    --------
    >>> from agflow.evaluation import interleaved
    >>> timings = interleaved({"sum": lambda: sum(range(1000)), "len": lambda: len("a")}, rounds=2)
    >>> sorted(timings), len(timings["sum"].seconds)
    (['len', 'sum'], 2)
    """
    calls = {
        name: _calls(contender, clock, least_seconds) for name, contender in contenders.items()
    }
    seconds: dict[Name, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            time.sleep(pause_seconds)
            start = clock()
            for _ in range(calls[name]):
                contender()
            seconds[name].append((clock() - start) / calls[name])
    return {name: Timing(tuple(values), images) for name, values in seconds.items()}


@torch.inference_mode()
def time_models(
    models: Mapping[str, nn.Module | Callable[[torch.Tensor], object]],
    x: torch.Tensor,
    *,
    batch: int,
    rounds: int = 5,
) -> dict[str, Timing]:
    """Time models on the same images, in turn round by round.

    Parameters
    ----------
    models : modules, or other functions of a batch (:func:`agflow.models.as_module`); modules run
        in evaluation mode and get the images in their own dtype, on their own device
    x : float [N, C, H, W]
    batch : images of one forward pass

    Examples
    --------
    >>> import torch
    >>> from agflow.evaluation import time_models
    >>> timings = time_models({"relu": torch.relu}, torch.zeros(8, 3, 4, 4), batch=4, rounds=2)
    >>> timings["relu"].images
    8
    """

    def over_all(model: nn.Module) -> Callable[[], None]:
        batches = as_taken(model, x).split(batch)

        def run() -> None:
            for piece in batches:
                model(piece)
            if batches[0].is_cuda:  # which has only been asked to compute so far
                torch.cuda.synchronize(batches[0].device)

        return run

    modules = {name: as_module(model) for name, model in models.items()}
    with evaluating(*modules.values()):
        contenders = {name: over_all(module) for name, module in modules.items()}
        return interleaved(contenders, rounds=rounds, images=len(x))


def first_images(dataset: Dataset, most: int) -> torch.Tensor:
    """Up to ``most`` images of a dataset of (image, label) with a length, [N, C, H, W]."""
    images = min(most, len(cast(Sized, dataset)))
    return torch.stack([dataset[i][0] for i in range(images)])


def _calls(
    contender: Callable[[], object], clock: Callable[[], float], least_seconds: float
) -> int:
    """How often one measurement calls ``contender``."""
    contender()
    start = clock()
    contender()
    return max(1, math.ceil(least_seconds / max(clock() - start, 1e-9)))
