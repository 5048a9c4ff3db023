"""Ridge regression from sums over rows, with the penalty chosen on held-out rows.

Shape suffixes: R rows, K inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from agflow.pruning.damping import damped_solution

# Shares of the inputs' mean variance, 1e-4 to 10.
PENALTIES = tuple(10 ** (exponent / 2) for exponent in range(-8, 3))

_COLUMNS = 128  # that are summed at once


@dataclass
class Regression:
    """Sums over weighted rows, from which targets t are regressed on inputs y and a constant.

    Attributes
    ----------
    rows : sum of their weights
    sum_K, sum_O : float64, sum of y and of t
    sum_KK, sum_OK : float64, sum of y yᵀ and of t yᵀ
    sum_t2 : float64 scalar, sum of |t|²

    Examples
    --------
    >>> import torch
    >>> from agflow.pruning.regression import Regression
    >>> y = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    >>> regression = Regression.empty(inputs=1, outputs=1)
    >>> regression.add(y, 3 * y + 1, torch.ones(3))
    >>> weight, bias = regression.solve(penalty=1e-12)
    >>> weight.round(decimals=3).tolist(), bias.round(decimals=3).tolist()
    ([[3.0]], [1.0])
    """

    rows: float
    sum_K: torch.Tensor
    sum_O: torch.Tensor
    sum_KK: torch.Tensor
    sum_OK: torch.Tensor
    sum_t2: torch.Tensor

    @classmethod
    def empty(cls, inputs: int, outputs: int, device: torch.device | str = "cpu") -> Regression:
        """Return the sums of no rows."""
        shapes = (inputs,), (outputs,), (inputs, inputs), (outputs, inputs), ()
        return cls(
            0.0, *(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes)
        )

    def add(
        self, y_RK: torch.Tensor, t_RO: torch.Tensor, weight_R: torch.Tensor | None = None
    ) -> None:
        """Add rows y [R, K] and t [R, O] with their weights [R], 1 each by default.

        Products inside a call are summed in the type of the rows (fast), calls in float64.
        """
        weighted_RK, weighted_RO = y_RK, t_RO
        if weight_R is not None:
            weighted_RK, weighted_RO = y_RK * weight_R[:, None], t_RO * weight_R[:, None]
        self.rows += len(y_RK) if weight_R is None else float(weight_R.sum(dtype=torch.float64))
        self.sum_K += _summed_rows(weighted_RK)
        self.sum_O += _summed_rows(weighted_RO)
        self.sum_KK += weighted_RK.T @ y_RK
        self.sum_OK += weighted_RO.T @ y_RK
        self.sum_t2 += (weighted_RO * t_RO).sum(dtype=torch.float64)

    def __add__(self, other: Regression) -> Regression:
        return Regression(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )

    def is_finite(self) -> bool:
        """Whether the sums of products are."""
        return bool(self.sum_KK.isfinite().all() and self.sum_OK.isfinite().all())

    def mean_target(self) -> torch.Tensor:
        """The weighted mean [O] of the targets."""
        return self.sum_O / self.rows

    def output_moments(self, weight_OK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance [O] over the rows of W y."""
        mean_K = self.sum_K / self.rows
        scatter_KK = self.sum_KK / self.rows - torch.outer(mean_K, mean_K)
        variance_O = (weight_OK @ scatter_KK * weight_OK).sum(1)
        return weight_OK @ mean_K, variance_O.clamp(min=0)

    def solve(self, penalty: float, intercept: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weight W [O, K] and bias b [O] of the least mean |W y + b - t|² plus λ |W|².

        λ is ``penalty`` * mean variance of y. Inputs that never vary predict nothing: their weight
        is zero. Without ``intercept``, b is zero and λ a share of the mean square.
        """
        mean_K, mean_O = self.sum_K / self.rows, self.sum_O / self.rows
        scatter_KK, cross_OK = self.sum_KK / self.rows, self.sum_OK / self.rows
        if intercept:
            scatter_KK = scatter_KK - torch.outer(mean_K, mean_K)
            cross_OK = cross_OK - torch.outer(mean_O, mean_K)
        weight_OK = damped_solution(
            scatter_KK,
            cross_OK.T,
            penalty * float(scatter_KK.diagonal().mean()),
            float(self.sum_KK.diagonal().mean()) / self.rows,
        ).T
        return weight_OK, mean_O - weight_OK @ mean_K if intercept else torch.zeros_like(mean_O)

    def error(self, weight_OK: torch.Tensor, bias_O: torch.Tensor) -> float:
        """Return the weighted mean over the rows of |W y + b - t|²."""
        fitted = (
            (weight_OK @ self.sum_KK * weight_OK).sum()
            + 2 * bias_O @ weight_OK @ self.sum_K
            + self.rows * bias_O.square().sum()
        )
        crossed = (weight_OK * self.sum_OK).sum() + bias_O @ self.sum_O
        return float(fitted - 2 * crossed + self.sum_t2) / self.rows


def _summed_rows(x_RK: torch.Tensor) -> torch.Tensor:
    """The float64 sum [K] over the rows; torch copies what it sums, so some columns at a time."""
    columns = x_RK.split(_COLUMNS, 1)
    return torch.cat([column_RK.sum(0, dtype=torch.float64) for column_RK in columns])


def best_penalty(
    fitted: Regression,
    held_out: Regression,
    intercept: bool = True,
    penalties: Sequence[float] = PENALTIES,
) -> float:
    """Choose the penalty whose fit on ``fitted`` has the least error on ``held_out``.

    Of equals, the greater one; the one in the middle where no rows are held out.

    Examples
    --------
    >>> import torch
    >>> from agflow.pruning.regression import Regression, best_penalty
    >>> fitted, held_out = Regression.empty(1, 1), Regression.empty(1, 1)
    >>> y = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    >>> fitted.add(y, 3 * y, torch.ones(3))
    >>> held_out.add(y + 1, 3 * y + 3, torch.ones(3))
    >>> best_penalty(fitted, held_out)
    0.0001
    """
    if not held_out.rows:
        return sorted(penalties)[len(penalties) // 2]
    errors = {penalty: held_out.error(*fitted.solve(penalty, intercept)) for penalty in penalties}
    return min(sorted(errors, reverse=True), key=lambda penalty: errors[penalty])
