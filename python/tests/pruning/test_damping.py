"""Repairs on images that say little: rank-deficient moments are damped, not an error."""

import pytest
import torch

import agflow
from agflow.pruning.damping import damped_solution
from agflow.pruning.regression import Regression, best_penalty

RANDOM = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(2))
IMAGES = {
    "black": torch.zeros(16, 3, 32, 32),
    "white": torch.full((16, 3, 32, 32), 1e3),
    "one, repeated": RANDOM[:1].repeat(16, 1, 1, 1),
    "one": RANDOM[:1],
    "two": RANDOM[:2],
    "one row of pixels": RANDOM[:, :, :1].repeat(1, 1, 32, 1),
}


@pytest.mark.parametrize("patch_size", [8, 16])  # 17 and 5 tokens, fewer than are held out of 8
@pytest.mark.parametrize("images", IMAGES)
def test_the_repair_of_images_that_say_little_is_finite_and_no_worse(make_vit, images, patch_size):
    model = make_vit(patch_size=patch_size)
    batches = [(RANDOM, torch.arange(16) % 10)]
    plan = agflow.plan(agflow.calibrate(model, batches), macs=0.6)
    dense, unrepaired = (
        each(IMAGES[images]) for each in (model, agflow.prune(model, plan, compensate="none"))
    )
    for compensate in ("ridge", "ridge_at_once"):
        light = agflow.prune(model, plan, [(IMAGES[images], None)], compensate=compensate)
        assert (light(IMAGES[images]) - dense).norm() <= 1.01 * (unrepaired - dense).norm()
        assert light(RANDOM).abs().max() < 100 * model(RANDOM).abs().max()


def test_the_damping_of_full_rank_is_the_one_asked_for():
    y = torch.randn(100, 5, dtype=torch.float64)
    scatter, cross = y.T @ y, y.T @ torch.randn(100, 2, dtype=torch.float64)
    expected = torch.linalg.solve(scatter + 3 * torch.eye(5, dtype=torch.float64), cross)
    found = damped_solution(scatter, cross, 3.0, float(scatter.diagonal().mean()))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("noise", [0.0, 1e-8, -1e-8, -1e-3])
def test_constant_channels_are_not_mixed_by_rounding(noise):
    scatter = noise * torch.ones(3, 3, dtype=torch.float64)
    solution = damped_solution(scatter, scatter[:, :1].abs(), 1e-2 * noise, mean_square=1.0)
    assert solution.abs().max() <= 1.0


def test_nothing_held_out_takes_a_penalty_in_the_middle():
    fitted, held_out = Regression.empty(1, 1), Regression.empty(1, 1)
    y = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    fitted.add(y, 3 * y, torch.ones(2))
    assert best_penalty(fitted, held_out, penalties=(1.0, 1e-4, 1e-2)) == 1e-2
