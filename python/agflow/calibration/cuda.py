"""Sums of activations and gradients on the device of the tensors: only [8, C] has to leave it.

They are the eight sums of the Go core's kernel, for tensors that it cannot read.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from agflow.errors import DeviceError, DtypeError, ShapeError

BLOCK_ELEMENTS = 1 << 22
"""Elements of a float64 temporary, of which there are three: 32 MiB each."""


@torch.no_grad()
def device_sums(
    y_RC: torch.Tensor, g_RC: torch.Tensor, rows_per_block: int | None = None
) -> torch.Tensor:
    """Compute eight sums over the rows of each channel, the last axis, in float64.

    In this order: Σ|y·g|, Σ y·g, Σ (y·g)², Σ|y|, Σ y, Σ y², Σ g², max |y·g|.

    Rows are widened to float64 a block at a time, so that no float64 copy of the whole is made.
    Equal tensors give equal bits on one device; those of another device or block size agree up to
    the rounding of float64 additions (about 1e-15 of Σ|·|). NaN and infinity show in the sums of
    their channel.

    Parameters
    ----------
    y_RC, g_RC : [R, C], or [B, P, C] of maps, in any memory layout; float32, float64, float16 or
        bfloat16, on one device that has float64
    rows_per_block : as many rows as fill ``BLOCK_ELEMENTS`` when None

    Returns
    -------
    float64 [8, C] on the tensors' device

    Raises
    ------
    ShapeError
        y and g are not of one such shape.
    DtypeError
        Their types differ or are not floating-point.
    DeviceError
        They lie on two devices.

    Examples
    --------
    >>> import torch
    >>> from agflow.calibration import device_sums
    >>> y, g = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [-1.0]])
    >>> device_sums(y, g).flatten().tolist()
    [5.0, 1.0, 13.0, 3.0, 3.0, 5.0, 10.0, 3.0]
    """
    _check(y_RC, g_RC)
    channels = y_RC.shape[-1]
    sums_8C = torch.zeros(8, channels, dtype=torch.float64, device=y_RC.device)
    if not y_RC.numel():
        return sums_8C
    step = rows_per_block or max(1, BLOCK_ELEMENTS // max(1, channels))
    for y_NC, g_NC in zip(_blocks(y_RC, step), _blocks(g_RC, step), strict=True):
        _add(sums_8C, y_NC.double(), g_NC.double())
    return sums_8C


def _blocks(x_RC: torch.Tensor, rows: int) -> Iterator[torch.Tensor]:
    """Blocks of at most as many rows: of maps some images, or parts of an image [1, N, C]."""
    if x_RC.ndim == 2:
        yield from x_RC.split(rows)
        return
    for x_NPC in x_RC.split(max(1, rows // max(1, x_RC.shape[1]))):
        yield from x_NPC.split(rows, dim=1)


def _add(sums_8C: torch.Tensor, y_NC: torch.Tensor, g_NC: torch.Tensor) -> None:
    """Add a block of rows, which may lie along several axes.

    One temporary serves all products in turn; y and g, views of the tensors where these are
    float64, are only read.
    """
    abs_yg_C, yg_C, yg2_C, abs_y_C, y_C, y2_C, g2_C, max_abs_yg_C = sums_8C
    rows = tuple(range(y_NC.ndim - 1))
    product_NC = y_NC * g_NC
    yg_C += product_NC.sum(rows)
    product_NC.abs_()
    abs_yg_C += product_NC.sum(rows)
    torch.maximum(max_abs_yg_C, product_NC.amax(rows), out=max_abs_yg_C)
    yg2_C += product_NC.square_().sum(rows)
    y_C += y_NC.sum(rows)
    abs_y_C += torch.abs(y_NC, out=product_NC).sum(rows)
    y2_C += torch.mul(y_NC, y_NC, out=product_NC).sum(rows)
    g2_C += torch.mul(g_NC, g_NC, out=product_NC).sum(rows)


def _check(y_RC: torch.Tensor, g_RC: torch.Tensor) -> None:
    if y_RC.ndim not in (2, 3) or y_RC.shape != g_RC.shape:
        raise ShapeError(
            f"y is {list(y_RC.shape)} and g {list(g_RC.shape)}, expected two matrices [rows, "
            "channels] of one shape, or two of [images, positions, channels]: flatten images and "
            "tokens into rows"
        )
    if y_RC.dtype != g_RC.dtype or not y_RC.is_floating_point():
        raise DtypeError(
            f"y is {y_RC.dtype} and g {g_RC.dtype}, expected one floating-point type for both: "
            "cast one to the other's"
        )
    if y_RC.device != g_RC.device:
        raise DeviceError(
            f"y lies on {y_RC.device} and g on {g_RC.device}, expected one device: move one to the "
            "other's"
        )
