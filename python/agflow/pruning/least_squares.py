"""Closed-form repair of a cut: the linear layer that read the removed channels learns to do without them.

Shape suffixes: R rows (image tokens), C channels before the cut, K kept and M removed channels, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from agflow._utils.loaders import batches_of
from agflow._utils.modes import preserve_training_mode
from agflow.errors import InvalidValueError, NonFiniteError, ShapeError
from agflow.models import adapter_for

METHODS = ("ridge", "ridge_at_once", "mean", "none")
AT_ONCE = METHODS[1:]

# Share of the mean variance of the kept channels that is added to each of them. On DeiT-Tiny cut by half, the error on
# images held out from the fit is flat (0.2 %) from 1e-5 to 3e-2 and grows beyond; the upper end is safer for few images.
RIDGE = 1e-2


@dataclass
class Moments:
    """First and second moments of a reader's input over the rows seen so far.

    Attributes
    ----------
    rows : number of rows (images times tokens)
    sum_C : float64 [C], sum of y
    sum_CC : float64 [C, C], sum of y yᵀ
    """

    rows: int
    sum_C: torch.Tensor
    sum_CC: torch.Tensor

    @classmethod
    def empty(cls, channels: int) -> Moments:
        return cls(
            0,
            torch.zeros(channels, dtype=torch.float64),
            torch.zeros(channels, channels, dtype=torch.float64),
        )

    def add(self, y_RC: torch.Tensor) -> None:
        """Add rows: products inside a call are summed in float32 (one fast matrix product), calls in float64."""
        self.rows += len(y_RC)
        self.sum_C += y_RC.sum(0, dtype=torch.float64).cpu()
        self.sum_CC += (y_RC.T @ y_RC).double().cpu()

    @property
    def mean_C(self) -> torch.Tensor:
        return self.sum_C / self.rows

    @property
    def second_CC(self) -> torch.Tensor:
        """E[y yᵀ], not centred."""
        return self.sum_CC / self.rows

    @property
    def covariance_CC(self) -> torch.Tensor:
        return self.second_CC - torch.outer(self.mean_C, self.mean_C)


def moments(model: nn.Module, readers: Sequence[str], loader: Iterable) -> dict[str, Moments]:
    """Moments of the input of every reader, by its name in the model; labels are not looked at.

    Holds 8 * C² bytes per reader. The model is run in evaluation mode without gradients and left as it was.

    Parameters
    ----------
    loader : batches of (images float32 [B, C, H, W], anything)

    Raises
    ------
    EmptyError
        The loader gave no batch.
    NonFiniteError
        A reader's activations hold NaN or infinity.
    """
    found = {reader: Moments.empty(model.get_submodule(reader).in_features) for reader in readers}
    device = next(model.parameters()).device
    with _watching(model, found), torch.no_grad():
        for images, *_ in batches_of(loader, "repair"):
            model(images.to(device))
    for name, moment in found.items():
        if not moment.sum_CC.isfinite().all():
            raise NonFiniteError(
                f"{name}: the activations hold NaN or infinity, so the cut cannot be repaired; check the images and the weights"
            )
    return found


@contextmanager
def _watching(model: nn.Module, found: dict[str, Moments]) -> Iterator[None]:
    """Every reader's input is added to ``found``, in evaluation mode; mode and hooks are undone on exit."""

    def watch(moment: Moments):
        return lambda reader, inputs: moment.add(inputs[0].flatten(0, -2))

    with preserve_training_mode(model), adapter_for(model).watchable(model), ExitStack() as hooks:
        model.eval()
        for reader, moment in found.items():
            hooks.callback(
                model.get_submodule(reader).register_forward_pre_hook(watch(moment)).remove
            )
        yield


def fold(
    weight_OC: torch.Tensor,
    bias_O: torch.Tensor | None,
    keep_K: torch.Tensor,
    moment: Moments | None,
    method: str = "ridge_at_once",
    ridge: float = RIDGE,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias of the reader once only the channels ``keep_K`` are left.

    The removed channels m are predicted from the kept ones k and the prediction is folded into the layer
    (all in float64; μ means, S covariances):

    - ``"ridge_at_once"``: m ≈ μ_M + Bᵀ (k - μ_K) with B = (S_KK + λ I)⁻¹ S_KM and λ = ``ridge`` * mean diagonal of S_KK;
      W' = W_K + W_M Bᵀ, b' = b + W_M (μ_M - Bᵀ μ_K). Of all linear repairs this has the least squared error in m.
    - ``"mean"``: m ≈ μ_M; W' = W_K, b' = b + W_M μ_M.
    - ``"none"``: m ≈ 0; W' = W_K, b' = b.

    A layer without a bias cannot take the shift: ridge then regresses without intercept on E[y yᵀ].

    Parameters
    ----------
    weight_OC, bias_O : of the reader before the cut
    keep_K : int64, ascending
    moment : of the reader's input; not needed by ``"none"``

    Returns
    -------
    weight_OK, bias_O : with the dtype and device of the weight

    Raises
    ------
    InvalidValueError
        Unknown method, a ridge that is not positive, no moments, or ``"mean"`` for a layer without a bias.
    ShapeError
        The moments are of another width.
    """
    if method not in AT_ONCE:
        raise InvalidValueError(
            f"fold knows no method {method!r}, expected one of: {', '.join(AT_ONCE)}"
        )
    if method == "none":
        return weight_OC[:, keep_K], bias_O
    if moment is None or not moment.rows:
        raise InvalidValueError(
            f"compensation {method!r} needs the moments of the layer's input: measure them with moments(...)"
        )
    if len(moment.sum_C) != weight_OC.shape[1]:
        raise ShapeError(
            f"the moments have {len(moment.sum_C)} channels, the layer reads {weight_OC.shape[1]}: measure them on the uncut model"
        )
    if not ridge > 0:
        raise InvalidValueError(
            f"ridge is {ridge}, expected a share of the mean variance above 0, such as {RIDGE}"
        )
    if method == "mean" and bias_O is None:
        raise InvalidValueError(
            "compensation 'mean' shifts the bias and this layer has none: use 'ridge'"
        )

    weight = weight_OC.detach().double().cpu()
    removed = torch.ones(weight.shape[1], dtype=torch.bool)
    removed[keep_K] = False
    kept_OK, removed_OM = weight[:, keep_K], weight[:, removed]
    if method == "mean":
        weight_OK = kept_OK
        shift_O = removed_OM @ moment.mean_C[removed]
    else:
        scatter_CC = moment.second_CC if bias_O is None else moment.covariance_CC
        mixing_KM = _ridge(scatter_CC[keep_K][:, keep_K], scatter_CC[keep_K][:, removed], ridge)
        weight_OK = kept_OK + removed_OM @ mixing_KM.T
        shift_O = removed_OM @ (moment.mean_C[removed] - mixing_KM.T @ moment.mean_C[keep_K])
    bias = None if bias_O is None else (bias_O.detach().double().cpu() + shift_O).to(bias_O)
    return weight_OK.to(weight_OC), bias


def check_method(method: str) -> None:
    """Raise InvalidValueError unless ``method`` is one of METHODS."""
    if method not in METHODS:
        raise InvalidValueError(
            f"compensation {method!r} is unknown, expected one of: {', '.join(METHODS)}"
        )


def _ridge(kept_KK: torch.Tensor, cross_KM: torch.Tensor, ridge: float) -> torch.Tensor:
    """(kept_KK + λ I)⁻¹ cross_KM; zero where the kept channels never vary and so predict nothing."""
    penalty = ridge * kept_KK.diagonal().mean()
    if penalty <= 0:
        return torch.zeros_like(cross_KM)
    factor = torch.linalg.cholesky(kept_KK + penalty * torch.eye(len(kept_KK), dtype=kept_KK.dtype))
    return torch.cholesky_solve(cross_KM, factor)
