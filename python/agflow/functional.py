"""The two primitives of pruning, on any matrices: utility of channels, and the top k of scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.maps import channel_matrix
from agflow.errors import DtypeError, EmptyError, ShapeError


def utility(y_RC: Any, g_RC: Any, *, axis: int | None = None, workers: int = 1) -> np.ndarray:
    """Compute the AGF utility of every channel, U_c = E|Y_c · G_c| (arXiv 2603.12354).

    The mean is over the rows. Every channel is one chain of float64 additions in row order: the
    same bits for any number of workers.

    Parameters
    ----------
    y_RC, g_RC : activations and their gradients [R, C], one row a token: torch tensors on the CPU,
        numpy arrays or Arrow arrays of fixed-size lists, float32, float64, float16 or bfloat16,
        both of one type (see :func:`agflow._core.matrix`); with ``axis`` tensors of any shape
    axis : of the channels: 1 in maps [B, C, H, W], which are read where they lie, in contiguous
        memory as in channels_last
    workers : threads at most

    Returns
    -------
    float64 [C]

    Raises
    ------
    ShapeError, DtypeError, DeviceError
        y and g do not match, or the core cannot read them.
    EmptyError
        They have no rows.
    NonFiniteError
        An element is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from agflow.functional import utility
    >>> activations = np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> gradients = np.array([[0.5, 0.0], [-0.5, 1.0]])
    >>> utility(activations, gradients)
    array([1., 2.])
    """
    if axis is None:
        y, g = arrow.matrix(y_RC, "y"), arrow.matrix(g_RC, "g")
    else:
        y, g = channel_matrix(y_RC, axis, "y"), channel_matrix(g_RC, axis, "g")
        if y_RC.shape != g_RC.shape:
            raise ShapeError(
                f"y is {tuple(y_RC.shape)} and g {tuple(g_RC.shape)}, expected one shape"
            )
    sum_C = arrow.call_for_array(core().abs_yg, workers, y, g)
    if not y.rows:
        raise EmptyError(
            "y and g have no rows, expected at least one to take a mean over: pass a batch with "
            "tokens"
        )
    return sum_C.to_numpy() / y.rows


def top_k(scores_N: Any, k: int, *, workers: int = 1) -> pa.BooleanArray:
    """Mark the ``k`` greatest scores; of equal scores those with the lower index come first.

    Parameters
    ----------
    scores_N : numbers [N], as a numpy array or anything numpy can see as one; taken as float64
    k : from 0 to N
    workers : threads at most; the result does not depend on it

    Returns
    -------
    booleans [N]

    Raises
    ------
    ShapeError, DtypeError
        The scores are not a row of numbers.
    InvalidValueError
        ``k`` is out of range.
    NonFiniteError
        A score is NaN; infinite ones are ranked.

    Examples
    --------
    >>> from agflow.functional import top_k
    >>> top_k([0.1, 0.9, 0.5, 0.9], 2).to_pylist()
    [False, True, False, True]
    """
    try:
        scores_N = np.ascontiguousarray(scores_N, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DtypeError(
            f"scores: {type(scores_N).__name__} is nothing numpy can see as float64 ({error}): "
            "pass an array of numbers"
        ) from error
    if scores_N.ndim != 1:
        raise ShapeError(
            f"scores: the shape is {scores_N.shape}, expected (scores,): flatten them first"
        )
    return arrow.call_for_array(
        core().top_k, k, workers, arrow.matrix(scores_N.reshape(-1, 1), "scores")
    )
