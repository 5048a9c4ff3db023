"""Ridge regression of more inputs than rows, through the rows' Gram matrix in place of the inputs'.

The solution is that of :class:`agflow.pruning.regression.Regression`, and the rows are held.

Shape suffixes: R rows, K inputs, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from agflow.pruning.damping import damped_solution


@dataclass
class DualRegression:
    """Rows, from which targets t are regressed on inputs y and a constant.

    Attributes
    ----------
    y_RK, t_RO : the rows and their targets

    Examples
    --------
    >>> import torch
    >>> from agflow.pruning.dual_regression import DualRegression
    >>> y = torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 5.0]])
    >>> regression = DualRegression.empty(inputs=2, outputs=1)
    >>> regression.add(y, y[:, :1] + 1)
    >>> weight, bias = regression.solve(penalty=1e-12)
    >>> (y.double() @ weight.T + bias).round(decimals=3).flatten().tolist()
    [1.0, 2.0, 3.0]
    """

    y_RK: torch.Tensor
    t_RO: torch.Tensor

    @classmethod
    def empty(cls, inputs: int, outputs: int, device: torch.device | str = "cpu") -> DualRegression:
        """No rows."""
        return cls(*(torch.zeros(0, size, device=device) for size in (inputs, outputs)))

    @property
    def rows(self) -> float:
        """Number of rows."""
        return float(len(self.y_RK))

    def add(self, y_RK: torch.Tensor, t_RO: torch.Tensor) -> None:
        """Add rows y [R, K] and t [R, O]."""
        self.y_RK, self.t_RO = torch.cat([self.y_RK, y_RK]), torch.cat([self.t_RO, t_RO])

    def __add__(self, other: DualRegression) -> DualRegression:
        return DualRegression(
            torch.cat([self.y_RK, other.y_RK]), torch.cat([self.t_RO, other.t_RO])
        )

    def is_finite(self) -> bool:
        """Whether all rows are."""
        return bool(self.y_RK.isfinite().all() and self.t_RO.isfinite().all())

    def solve(self, penalty: float, intercept: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [O, K] and bias [O] as :meth:`agflow.pruning.regression.Regression.solve`."""
        y_RK, t_RO = self.y_RK.double(), self.t_RO.double()
        mean_K, mean_O = y_RK.mean(0), t_RO.mean(0)
        square = float(y_RK.square().mean())
        if intercept:
            y_RK, t_RO = y_RK - mean_K, t_RO - mean_O
        gram_RR = y_RK @ y_RK.T
        # The mean of the inputs' variances, times rows: the penalty of the inputs' Gram matrix.
        damping = penalty * float(gram_RR.diagonal().sum()) / y_RK.shape[1]
        dual_RO = damped_solution(gram_RR, t_RO, damping, square * y_RK.shape[1])
        weight_OK = dual_RO.T @ y_RK
        return weight_OK, mean_O - weight_OK @ mean_K if intercept else torch.zeros_like(mean_O)

    def error(self, weight_OK: torch.Tensor, bias_O: torch.Tensor) -> float:
        """The mean over the rows of |W y + b - t|²."""
        fitted_RO = self.y_RK.double() @ weight_OK.T + bias_O
        return float((fitted_RO - self.t_RO).square().sum()) / len(self.y_RK)

    def mean_target(self) -> torch.Tensor:
        """The mean [O] of the targets."""
        return self.t_RO.mean(0, dtype=torch.float64)

    def output_moments(self, weight_OK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance [O] over the rows of W y."""
        outputs_RO = self.y_RK.double() @ weight_OK.T
        return outputs_RO.mean(0), outputs_RO.var(0, unbiased=False)
