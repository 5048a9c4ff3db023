"""Damped least squares that stay solvable where the rows say little.

Shape suffixes: K inputs, O targets.
"""

from __future__ import annotations

import math

import torch

# Moments are sums of float32 products: a variance below this share of the mean square is rounding.
ROUNDING = 1e-6


def damped_solution(
    scatter_KK: torch.Tensor, cross_KO: torch.Tensor, damping: float, mean_square: float
) -> torch.Tensor:
    """Solve (scatter + λ I) x = cross for x [K, O], with λ = ``damping`` or as much as it takes.

    Black images, one image many times, constant channels or fewer rows than channels leave a
    scatter that is zero in some directions, or negative by rounding. Where it is rounding
    altogether, or has no Cholesky factor, λ is at least what rounding leaves of ``mean_square``,
    and is raised tenfold until there is a factor.

    Parameters
    ----------
    scatter_KK : float64, symmetric, of the inputs
    cross_KO : float64, of inputs and targets
    damping : from 0
    mean_square : mean over the inputs of E[y²]; where it is 0, so is the solution

    Examples
    --------
    >>> import torch
    >>> from agflow.pruning.damping import damped_solution
    >>> scatter = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    >>> damped_solution(scatter, scatter[:, :1], damping=0.0, mean_square=1.0).round(decimals=3)
    tensor([[0.5000],
            [0.5000]], dtype=torch.float64)
    """
    if mean_square <= 0:
        return torch.zeros_like(cross_KO)
    rounding = ROUNDING * mean_square
    if scatter_KK.diagonal().mean() <= rounding:
        damping = max(damping, rounding)
    identity_KK = torch.eye(len(scatter_KK)).to(scatter_KK)
    while math.isfinite(damping):
        factor_KK, failed = torch.linalg.cholesky_ex(scatter_KK + damping * identity_KK)
        if not failed:
            return torch.cholesky_solve(cross_KO, factor_KK)
        damping = max(10 * damping, rounding)
    return torch.zeros_like(cross_KO)
