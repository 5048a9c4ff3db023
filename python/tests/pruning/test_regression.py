"""Ridge regression from sums against least squares over the rows."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from agflow.pruning.regression import PENALTIES, Regression, best_penalty


def sums_of(y, t):
    regression = Regression.empty(y.shape[1], t.shape[1])
    for rows in torch.arange(len(y)).split(7):
        regression.add(y[rows], t[rows], torch.ones(len(rows), dtype=y.dtype))
    return regression


def rows_for(seed, rows=60, inputs=5, outputs=3):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(rows, inputs, dtype=torch.float64, generator=generator) + 2
    return y, y @ torch.randn(
        inputs, outputs, dtype=torch.float64, generator=generator
    ) + torch.randn(rows, outputs, dtype=torch.float64, generator=generator)


@given(st.integers(0, 10_000), st.sampled_from(PENALTIES), st.booleans())
@settings(max_examples=40, deadline=None)
def test_ridge_equals_least_squares_on_rows_that_carry_the_penalty(seed, penalty, intercept):
    """|Wy + b - t|² / rows + λ|W|² is least squares with further rows √(λ · rows) · I."""
    y, t = rows_for(seed)
    inputs, targets = (y - y.mean(0), t - t.mean(0)) if intercept else (y, t)
    added = penalty * inputs.square().mean(0).mean() * len(y)
    weight = torch.linalg.lstsq(
        torch.cat([inputs, added.sqrt() * torch.eye(5, dtype=torch.float64)]),
        torch.cat([targets, torch.zeros(5, 3, dtype=torch.float64)]),
    ).solution.T
    found, bias = sums_of(y, t).solve(penalty, intercept)
    torch.testing.assert_close(found, weight)
    torch.testing.assert_close(
        bias, t.mean(0) - weight @ y.mean(0) if intercept else torch.zeros(3, dtype=torch.float64)
    )


def test_errors_are_those_over_the_rows_and_the_least_wins():
    y, t = rows_for(1)
    seen, unseen = sums_of(y[:20], t[:20]), sums_of(y[20:], t[20:])
    errors = {}
    for penalty in PENALTIES:
        weight, bias = seen.solve(penalty)
        errors[penalty] = float((y[20:] @ weight.T + bias - t[20:]).square().sum(1).mean())
        assert unseen.error(weight, bias) == pytest.approx(errors[penalty], rel=1e-9)
    assert best_penalty(seen, unseen) == min(errors, key=errors.get)
    both, whole = seen + unseen, sums_of(y, t)
    assert both.rows == 60
    torch.testing.assert_close(both.solve(0.1), whole.solve(0.1))


def test_a_row_of_weight_three_is_that_row_three_times():
    y, t = rows_for(2)
    times = torch.arange(60) % 4
    weighed = Regression.empty(5, 3)
    weighed.add(y, t, times.double())
    repeated = sums_of(y.repeat_interleave(times, 0), t.repeat_interleave(times, 0))
    assert weighed.rows == repeated.rows == 90
    torch.testing.assert_close(weighed.solve(0.1), repeated.solve(0.1))
    assert weighed.error(*repeated.solve(0.1)) == pytest.approx(
        repeated.error(*repeated.solve(0.1))
    )


def test_inputs_that_never_vary_get_no_weight():
    weight, bias = sums_of(
        torch.ones(9, 2, dtype=torch.float64), torch.arange(9.0, dtype=torch.float64)[:, None]
    ).solve(0.1)
    assert torch.equal(
        weight, torch.zeros(1, 2, dtype=torch.float64)
    ) and bias.item() == pytest.approx(4)


@pytest.mark.parametrize("shape", [(7, 1), (500, 127), (1000, 128), (333, 300), (5516, 430)])
def test_some_columns_at_a_time_have_the_bits_of_all(shape):
    y_RK = torch.randn(shape)
    regression = Regression.empty(shape[1], 1)
    regression.add(y_RK, y_RK[:, :1], torch.ones(len(y_RK)))
    assert torch.equal(regression.sum_K, y_RK.sum(0, dtype=torch.float64))
