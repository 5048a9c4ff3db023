"""One pass over Y and G, by agflow and by its peers, as calls without arguments.

Shape suffixes: R rows, C channels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch._inductor import config as inductor
from torch._inductor.exc import InductorError

from agflow._core import arrow
from agflow._core.loader import core
from agflow._core.maps import channel_matrix
from agflow.calibration.session import statistics_session
from agflow.functional import utility
from agflow.models import ChannelGroup

Contenders = dict[str, Callable[[], object]]

OURS = "agflow"
READ = "read limit"
NO_MODEL = {"name": "bench", "macs": 0, "params": 0}


def reading(y_RC: torch.Tensor, g_RC: torch.Tensor, threads: int) -> Contenders:
    """The reading of both tensors [R, C] or maps alone, which no pass can be faster than."""

    def read() -> None:
        arrow.brief_call(core().read_limit, threads, channel_matrix(y_RC, 1, "y"))
        arrow.brief_call(core().read_limit, threads, channel_matrix(g_RC, 1, "g"))

    return {READ: read}


def agf_of_maps(y_BCHW: torch.Tensor, g_BCHW: torch.Tensor, threads: int) -> Contenders:
    """Σ|y·g| per channel of maps, in whatever memory layout they have; each call returns [C]."""
    return {
        OURS: lambda: utility(y_BCHW, g_BCHW, axis=1, workers=threads),
        "torch eager": lambda: _agf_of_maps(y_BCHW, g_BCHW),
        **_compiled(_agf_of_maps, _agf_of_maps_float64, y_BCHW, g_BCHW),
    }


def agf(y_RC: torch.Tensor, g_RC: torch.Tensor, threads: int) -> Contenders:
    """Σ|y·g| per channel; each call returns [C]."""
    contenders: Contenders = {
        OURS: lambda: utility(y_RC, g_RC, workers=threads),
        "torch eager": lambda: (y_RC * g_RC).abs().sum(0),
        "torch eager, buffer reused": _torch_reusing(y_RC, g_RC),
        **_compiled(_agf_as_they_come, _agf_float64, y_RC, g_RC),
    }
    if y_RC.dtype is torch.float32:
        y, g = y_RC.numpy(), g_RC.numpy()
        product = np.empty_like(y)
        contenders["numpy"] = lambda: np.abs(y * g).sum(0)
        contenders["numpy, buffer reused"] = lambda: np.abs(
            np.multiply(y, g, out=product), out=product
        ).sum(0)
        contenders |= _numexpr(y, g, threads)
    return contenders


@contextmanager
def all_sums(y_RC: torch.Tensor, g_RC: torch.Tensor, threads: int) -> Iterator[Contenders]:
    """All eight sums per channel, in the order of the statistics table."""
    with statistics_add(y_RC, g_RC, threads) as add:
        yield {
            OURS: add,
            "torch eager": lambda: _sums_as_they_come(y_RC, g_RC),
            **_compiled(_sums_as_they_come, _sums_float64, y_RC, g_RC),
        }


@contextmanager
def statistics_add(
    y_RC: torch.Tensor, g_RC: torch.Tensor, threads: int
) -> Iterator[Callable[[], object]]:
    """agflow's own call: the tensors into a running statistics session of one layer."""
    layer = ChannelGroup(
        "layer", "mlp", y_RC.shape[1], unit_width=1, unit_macs=0, unit_params=0, reader=""
    )
    with statistics_session(NO_MODEL, [layer], workers=threads) as session:
        yield lambda: arrow.brief_call(
            core().statistics_add, session, 0, 1, arrow.matrix(y_RC, "y"), arrow.matrix(g_RC, "g")
        )


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def row_by_row(y_RC: torch.Tensor, g_RC: torch.Tensor) -> np.ndarray:
    """Σ|y·g| by numpy, rows in order: agflow must equal it in every bit. float64 [C]."""
    total_C = np.zeros(y_RC.shape[1])
    for y, g in zip(y_RC.split(1024), g_RC.split(1024), strict=True):
        product = np.abs(y.double().numpy() * g.double().numpy())
        total_C = np.concatenate([total_C[None], product]).sum(0)
    return total_C


def _agf_as_they_come(y_RC: torch.Tensor, g_RC: torch.Tensor) -> torch.Tensor:
    return (y_RC * g_RC).abs().sum(0)


def _agf_float64(y_RC: torch.Tensor, g_RC: torch.Tensor) -> torch.Tensor:
    return (y_RC.double() * g_RC.double()).abs().sum(0)


def _agf_of_maps(y_BCHW: torch.Tensor, g_BCHW: torch.Tensor) -> torch.Tensor:
    return (y_BCHW * g_BCHW).abs().sum((0, 2, 3))


def _agf_of_maps_float64(y_BCHW: torch.Tensor, g_BCHW: torch.Tensor) -> torch.Tensor:
    return _agf_of_maps(y_BCHW.double(), g_BCHW.double())


def _sums_as_they_come(y_RC: torch.Tensor, g_RC: torch.Tensor) -> tuple[torch.Tensor, ...]:
    p_RC = y_RC * g_RC
    q_RC = p_RC.abs()
    return (
        q_RC.sum(0),
        p_RC.sum(0),
        (p_RC * p_RC).sum(0),
        y_RC.abs().sum(0),
        y_RC.sum(0),
        (y_RC * y_RC).sum(0),
        (g_RC * g_RC).sum(0),
        q_RC.amax(0),
    )


def _sums_float64(y_RC: torch.Tensor, g_RC: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _sums_as_they_come(y_RC.double(), g_RC.double())


def _compiled(
    as_they_come: Callable[..., object], float64: Callable[..., object], *arguments: torch.Tensor
) -> Contenders:
    """Calls compiled for these arguments and the current number of threads.

    There are none where there is no C++ compiler.
    """
    torch.compiler.reset()  # kernels have the number of threads compiled in
    contenders: Contenders = {}
    with inductor.patch(force_disable_caches=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "dynamo_pgo force disabled")  # as asked for
        for name, function in {
            "torch.compile": as_they_come,
            "torch.compile, float64 sums": float64,
        }.items():
            fast = torch.compile(function, dynamic=False)
            try:
                fast(*arguments)
            except InductorError:
                return {}
            contenders[name] = partial(fast, *arguments)
    return contenders


def _torch_reusing(y_RC: torch.Tensor, g_RC: torch.Tensor) -> Callable[[], object]:
    product_RC = torch.empty_like(y_RC)
    return lambda: torch.mul(y_RC, g_RC, out=product_RC).abs_().sum(0)


def _numexpr(y: np.ndarray, g: np.ndarray, threads: int) -> Contenders:
    try:
        import numexpr
    except ImportError:
        return {}

    def evaluate() -> np.ndarray:
        numexpr.set_num_threads(threads)
        return numexpr.evaluate("sum(abs(y * g), axis=0)", {"y": y, "g": g})

    return {"numexpr": evaluate}
