"""Compensation against float64 least squares, its optimality, its limits; streamed moments."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from agflow.errors import EmptyError, InvalidValueError, NonFiniteError, ShapeError
from agflow.models import adapter_for
from agflow.pruning.least_squares import Moments, compensated, moments
from agflow.pruning.sequential import readers_of


def layer_and_rows(seed, rows=400, channels=12, outputs=5):
    """Correlated rows with a mean far from zero, float64, and their moments."""
    random = np.random.default_rng(seed)
    y_RC = random.standard_normal((rows, channels)) @ random.standard_normal(
        (channels, channels)
    ) + random.standard_normal(channels)
    moment = Moments(rows, torch.from_numpy(y_RC.sum(0)), torch.from_numpy(y_RC.T @ y_RC))
    weight, bias = (
        torch.from_numpy(random.standard_normal((outputs, channels))),
        torch.from_numpy(random.standard_normal(outputs)),
    )
    keep = torch.from_numpy(
        np.sort(random.choice(channels, random.integers(1, channels), replace=False))
    )
    return torch.from_numpy(y_RC), moment, weight, bias, keep


def test_ridge_tends_to_least_squares_with_intercept():
    y, moment, weight, bias, keep = layer_and_rows(0)
    new_weight, new_bias = compensated(weight, bias, keep, moment, ridge=1e-12)
    design = np.c_[y[:, keep].numpy(), np.ones(len(y))]
    best = np.linalg.lstsq(design, (y @ weight.T + bias).numpy(), rcond=None)[0]
    np.testing.assert_allclose(np.c_[new_weight, new_bias].T, best, rtol=1e-7, atol=1e-7)


def test_ridge_equals_its_formula_by_explicit_inverse():
    y, moment, weight, bias, keep = layer_and_rows(1)
    gone = torch.tensor([c for c in range(12) if c not in keep])
    covariance = torch.cov(y.T, correction=0)
    penalty = 0.05 * covariance.diagonal()[keep].mean()
    mixing = (
        torch.linalg.inv(covariance[keep][:, keep] + penalty * torch.eye(len(keep)))
        @ covariance[keep][:, gone]
    )
    new_weight, new_bias = compensated(weight, bias, keep, moment, ridge=0.05)
    torch.testing.assert_close(new_weight, weight[:, keep] + weight[:, gone] @ mixing.T)
    torch.testing.assert_close(
        new_bias, bias + weight[:, gone] @ (y.mean(0)[gone] - mixing.T @ y.mean(0)[keep])
    )


@given(st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_error_falls_from_none_to_mean_to_ridge_on_the_fitted_rows(seed):
    y, moment, weight, bias, keep = layer_and_rows(seed)
    target = y @ weight.T + bias

    def error(method):
        new_weight, new_bias = compensated(weight, bias, keep, moment, method, ridge=1e-6)
        return ((y[:, keep] @ new_weight.T + new_bias - target) ** 2).mean().item()

    assert error("ridge_at_once") <= error("mean") * (1 + 1e-9) <= error("none") * (1 + 1e-9)


def test_mean_keeps_the_mean_output_and_none_only_drops():
    y, moment, weight, bias, keep = layer_and_rows(3)
    new_weight, new_bias = compensated(weight, bias, keep, moment, "mean")
    torch.testing.assert_close(
        (y[:, keep] @ new_weight.T + new_bias).mean(0), (y @ weight.T + bias).mean(0)
    )
    new_weight, new_bias = compensated(weight, bias, keep, None, "none")
    assert torch.equal(new_weight, weight[:, keep]) and torch.equal(new_bias, bias)


def test_a_copy_of_a_kept_channel_is_removed_without_loss():
    y = torch.randn(100, 4, dtype=torch.float64)
    y[:, 3] = 2 * y[:, 0] - 5
    moment = Moments(100, y.sum(0), y.T @ y)
    weight, bias = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    new_weight, new_bias = compensated(weight, bias, torch.tensor([0, 1, 2]), moment, ridge=1e-9)
    torch.testing.assert_close(
        y[:, :3] @ new_weight.T + new_bias, y @ weight.T + bias, atol=1e-6, rtol=1e-6
    )


def test_without_bias_ridge_regresses_without_intercept():
    y, moment, weight, _, keep = layer_and_rows(4)
    new_weight, new_bias = compensated(weight, None, keep, moment, ridge=1e-12)
    best = np.linalg.lstsq(y[:, keep].numpy(), (y @ weight.T).numpy(), rcond=None)[0]
    assert new_bias is None
    np.testing.assert_allclose(new_weight.T, best, rtol=1e-7, atol=1e-7)
    with pytest.raises(InvalidValueError, match="has none: use 'ridge'"):
        compensated(weight, None, keep, moment, "mean")


def test_constant_channels_predict_nothing_and_break_nothing():
    y = torch.ones(50, 3, dtype=torch.float64)
    weight, bias = torch.randn(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    new_weight, new_bias = compensated(
        weight, bias, torch.tensor([0]), Moments(50, y.sum(0), y.T @ y)
    )
    torch.testing.assert_close(y[:, :1] @ new_weight.T + new_bias, y @ weight.T)


def test_compensation_refusals():
    _, moment, weight, bias, keep = layer_and_rows(5)
    with pytest.raises(InvalidValueError, match="needs the moments"):
        compensated(weight, bias, keep, None)
    with pytest.raises(
        InvalidValueError, match="method is 'ridge', expected one of: ridge_at_once, mean, none"
    ):
        compensated(weight, bias, keep, moment, "ridge")
    with pytest.raises(InvalidValueError, match="ridge is 0"):
        compensated(weight, bias, keep, moment, ridge=0)
    with pytest.raises(ShapeError, match="have 12 channels, the layer reads 13"):
        compensated(torch.randn(5, 13), bias, keep, moment)


def test_moments_equal_float64_over_any_batch_split(vit, images):
    readers = readers_of(adapter_for(vit).layers(vit))
    seen = {}
    handles = [
        vit.get_submodule(reader).register_forward_pre_hook(
            lambda _, y, name=reader: seen.__setitem__(name, y[0].detach().flatten(0, 1).double())
        )
        for reader in readers
    ]
    vit(images[0])
    for handle in handles:
        handle.remove()
    for split in (8, 3):
        found = moments(
            vit, readers, zip(images[0].split(split), images[1].split(split), strict=True)
        )
        for reader, y_RC in seen.items():
            assert found[reader].rows == len(y_RC)
            torch.testing.assert_close(found[reader].mean_C, y_RC.mean(0), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(
                found[reader].covariance_CC, torch.cov(y_RC.T, correction=0), rtol=1e-3, atol=1e-5
            )


def test_moments_refuse_empty_loaders_and_non_finite_activations(make_vit, images):
    model = make_vit().train()
    readers = readers_of(adapter_for(model).layers(model))
    with pytest.raises(EmptyError, match="no batch"):
        moments(model, readers, [])
    with pytest.raises(NonFiniteError, match="blocks.0.attn.proj"):
        moments(model, readers, [(images[0] * float("nan"), None)])
    assert model.training and not any(module._forward_pre_hooks for module in model.modules())
