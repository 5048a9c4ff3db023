"""Ridge regression from sums over rows, its penalty chosen on rows that the fit has not seen.

Shape suffixes: R rows, K inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

PENALTIES = tuple(
    10 ** (exponent / 2) for exponent in range(-8, 3)
)  # shares of the inputs' mean variance, 1e-4 to 10


@dataclass
class Regression:
    """All that weighted least squares of targets t on inputs y and a constant needs of the rows seen so far.

    Attributes
    ----------
    rows : sum of their weights
    sum_K, sum_O : float64, sum of y and of t
    sum_KK, sum_OK : float64, sum of y yᵀ and of t yᵀ
    sum_t2 : float64 scalar, sum of |t|²
    """

    rows: float
    sum_K: torch.Tensor
    sum_O: torch.Tensor
    sum_KK: torch.Tensor
    sum_OK: torch.Tensor
    sum_t2: torch.Tensor

    @classmethod
    def empty(cls, inputs: int, outputs: int, device: torch.device | str = "cpu") -> Regression:
        shapes = (inputs,), (outputs,), (inputs, inputs), (outputs, inputs), ()
        return cls(
            0.0, *(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes)
        )

    def add(self, y_RK: torch.Tensor, t_RO: torch.Tensor, weight_R: torch.Tensor) -> None:
        """Add rows: products inside a call are summed in the type of the rows (fast), calls in float64."""
        weighed_RK, weighed_RO = y_RK * weight_R[:, None], t_RO * weight_R[:, None]
        self.rows += float(weight_R.sum(dtype=torch.float64))
        self.sum_K += weighed_RK.sum(0, dtype=torch.float64)
        self.sum_O += weighed_RO.sum(0, dtype=torch.float64)
        self.sum_KK += weighed_RK.T @ y_RK
        self.sum_OK += weighed_RO.T @ y_RK
        self.sum_t2 += (weighed_RO * t_RO).sum(dtype=torch.float64)

    def __add__(self, other: Regression) -> Regression:
        return Regression(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )

    def solve(self, penalty: float, intercept: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [O, K] and bias [O] of least mean |W y + b - t|² plus λ |W|², λ = ``penalty`` * mean variance of y.

        Inputs that never vary predict nothing: their weight is zero. Without ``intercept`` b is zero, and λ is a share of
        the mean square.
        """
        mean_K, mean_O = self.sum_K / self.rows, self.sum_O / self.rows
        scatter_KK, cross_OK = self.sum_KK / self.rows, self.sum_OK / self.rows
        if intercept:
            scatter_KK = scatter_KK - torch.outer(mean_K, mean_K)
            cross_OK = cross_OK - torch.outer(mean_O, mean_K)
        added = penalty * scatter_KK.diagonal().mean()
        if added <= 0:
            weight_OK = torch.zeros_like(cross_OK)
        else:
            factor = torch.linalg.cholesky(
                scatter_KK + added * torch.eye(len(scatter_KK)).to(scatter_KK)
            )
            weight_OK = torch.cholesky_solve(cross_OK.T, factor).T
        return weight_OK, mean_O - weight_OK @ mean_K if intercept else torch.zeros_like(mean_O)

    def error(self, weight_OK: torch.Tensor, bias_O: torch.Tensor) -> float:
        """Weighted mean over the rows of |W y + b - t|²."""
        fitted = (
            (weight_OK @ self.sum_KK * weight_OK).sum()
            + 2 * bias_O @ weight_OK @ self.sum_K
            + self.rows * bias_O.square().sum()
        )
        crossed = (weight_OK * self.sum_OK).sum() + bias_O @ self.sum_O
        return float(fitted - 2 * crossed + self.sum_t2) / self.rows


def best_penalty(
    fitted: Regression,
    held_out: Regression,
    intercept: bool = True,
    penalties: Sequence[float] = PENALTIES,
) -> float:
    """The penalty whose fit on the one has the least error on the other; of equals the greater."""
    errors = {penalty: held_out.error(*fitted.solve(penalty, intercept)) for penalty in penalties}
    return min(sorted(errors, reverse=True), key=errors.get)
