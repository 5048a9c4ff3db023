"""Timings: contenders in turn, figures of a timing, models on the same images."""

import itertools

import pytest
import torch

from agflow.evaluation.timing import (
    GAIN,
    LOSS,
    NOISY,
    Timing,
    first_images,
    interleaved,
    time_models,
)


def test_contenders_take_turns_after_a_warm_up():
    calls = []
    contenders = {name: lambda name=name: calls.append(name) for name in "ab"}
    timings = interleaved(contenders, rounds=3, least_seconds=0, pause_seconds=0)
    assert "".join(calls) == "aabb" + 3 * "ab"
    assert all(len(timing.seconds) == 3 and timing.images == 1 for timing in timings.values())


def test_short_calls_are_repeated_and_their_time_divided():
    ticks, calls = itertools.count(), []
    timings = interleaved(
        {"a": lambda: calls.append(1)},
        rounds=2,
        images=8,
        clock=lambda: float(next(ticks)),  # each reading is a second later
        least_seconds=4,
        pause_seconds=0,
    )
    assert timings["a"] == Timing((0.25, 0.25), 8) and len(calls) == 2 + 2 * 4


def test_figures_of_a_timing():
    timing = Timing((0.5, 0.25, 0.2), images=10)
    assert (timing.median, timing.images_per_second, timing.spread) == (0.25, 40, (20, 50))
    assert timing.over(Timing((1.0, 0.5, 0.1))) == (0.5, 0.5, 2)
    assert repr(timing) == "<agflow.Timing: 40.0 images/s (20.0 to 50.0), 3 rounds>"
    with pytest.raises(ValueError):
        timing.over(Timing((1.0,)))


def speed(*ratios):
    """The speed of a contender that was so many times as fast, a round after the other."""
    heavy = Timing(tuple(float(1 + i) for i in range(len(ratios))), images=4)  # a slowing machine
    pairs = zip(heavy.seconds, ratios, strict=True)
    return Timing(tuple(second / ratio for second, ratio in pairs), images=4).speed_over(heavy)


@pytest.mark.parametrize(
    ("ratios", "finding"),
    [
        ([2.0, 1.9, 2.1, 1.8, 2.2], GAIN),  # although the spreads of the seconds overlap
        ([0.5, 0.6, 0.4, 0.5, 0.5], LOSS),
        ([2.0, 1.9, 2.1, 0.9, 2.2], NOISY),  # a round disagrees
        ([2.0, 1.9, 2.1, 1.8], NOISY),  # too few rounds
        ([2.0], NOISY),
        ([2.0, 1.9, 2.1, 0.9, 2.2, 2.0, 2.0, 2.0, 2.0], GAIN),  # one of nine disagrees
        ([2.0, 1.9, 2.1, 0.9, 2.2, 2.0, 2.0, 2.0, 0.9], NOISY),
        ([1.005, 1.004, 1.006, 1.005, 1.005], NOISY),  # less than what memory's places make
        ([0.995, 0.994, 0.996, 0.995, 0.995], NOISY),
        ([1.0, 1.0, 1.0, 1.0, 1.0], NOISY),
        ([1.02, 1.03, 1.02, 1.02, 1.04], GAIN),
    ],
)
def test_a_speed_is_told_by_rounds_that_agree(ratios, finding):
    found = speed(*ratios)
    assert found.finding == finding
    assert found[:3] == pytest.approx((sorted(ratios)[len(ratios) // 2], *minmax(ratios)), rel=0.06)


def minmax(values):
    return min(values), max(values)


def test_models_are_timed_on_all_images_batch_by_batch():
    sizes, images = [], torch.zeros(5, 3, 2, 2)
    timings = time_models({"a": lambda x: sizes.append(len(x))}, images, batch=2, rounds=1)
    assert timings["a"].images == 5 and len(timings["a"].seconds) == 1
    assert sizes[:3] == [2, 2, 1] and len(sizes) % 3 == 0


def test_first_images():
    dataset = [(torch.full((1, 2, 2), float(i)), i) for i in range(3)]
    assert first_images(dataset, 2).shape == (2, 1, 2, 2)
    assert first_images(dataset, 9)[:, 0, 0, 0].tolist() == [0, 1, 2]
