"""Sums by torch equal the core's for every type and block size, without whole copies."""

import json

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from agflow._core import arrow
from agflow._core.loader import core
from agflow.calibration.cuda import device_sums
from agflow.errors import DeviceError, DtypeError, NonFiniteError, ShapeError

NAMES = ("sum_abs_yg", "sum_yg", "sum_yg2", "sum_abs_y", "sum_y", "sum_y2", "sum_g2", "max_abs_yg")
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
cuda = pytest.param(
    "cuda",
    marks=pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch finds no CUDA device here"
    ),
)


def pair(rows, channels, dtype=torch.float32, seed=0):
    """Activations and gradients whose magnitudes differ by a thousand between channels."""
    generator = torch.Generator().manual_seed(seed)
    scale_C = 10.0 ** (3 * torch.rand(channels, generator=generator) - 3)
    return tuple(
        (torch.randn(rows, channels, generator=generator) * scale_C).to(dtype) for _ in "yg"
    )


def through_core(channels, add):
    """{column: float64 [C]} of a session of one layer, after ``add(session)``."""
    layer = {
        "name": "a",
        "group": "mlp",
        "units": channels,
        "unit_width": 1,
        "unit_macs": 1,
        "unit_params": 1,
    }
    session = core().statistics_open(
        json.dumps(
            {
                "model": {"name": "a", "macs": 1, "params": 1},
                "layers": [layer],
                "workers": 1,
                "metadata": {},
            }
        )
    )
    try:
        add(session)
        table = arrow.call_for_batch(core().statistics_table, session)
        return {
            name: torch.tensor(table[name].to_numpy())
            for name in (*NAMES, "rows", "samples", "batches")
        }
    finally:
        core().statistics_close(session)


def core_sums(y_RC, g_RC):
    return through_core(
        y_RC.shape[1],
        lambda session: arrow.call(
            core().statistics_add, session, 0, 1, arrow.matrix(y_RC), arrow.matrix(g_RC)
        ),
    )


def assert_same_sums(sums_8C, expected, tolerance=1e-13):
    """Signed sums may cancel, so their error is held against the sum of the magnitudes."""
    magnitude = {"sum_yg": "sum_abs_yg", "sum_y": "sum_abs_y"}
    for sum_C, name in zip(sums_8C.cpu(), NAMES, strict=True):
        assert (
            (sum_C - expected[name]).abs() <= tolerance * expected[magnitude.get(name, name)]
        ).all(), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", ["cpu", cuda])
def test_sums_equal_the_cores(dtype, device):
    y_RC, g_RC = pair(5_000, 37, dtype)
    sums_8C = device_sums(y_RC.to(device), g_RC.to(device))
    assert (
        sums_8C.dtype is torch.float64
        and sums_8C.shape == (8, 37)
        and sums_8C.device.type == device
    )
    assert_same_sums(sums_8C, core_sums(y_RC, g_RC))


@given(
    rows=st.integers(0, 40),
    channels=st.integers(1, 9),
    block=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
@settings(max_examples=30, deadline=None)
def test_blocks_do_not_matter(rows, channels, block, seed):
    y_RC, g_RC = pair(rows, channels, seed=seed)
    whole = dict(zip(NAMES, device_sums(y_RC, g_RC, rows_per_block=max(rows, 1)), strict=True))
    assert_same_sums(
        device_sums(y_RC, g_RC, rows_per_block=block), whole, tolerance=1e-15 * max(rows, 1)
    )


@pytest.mark.parametrize("device", ["cpu", cuda])
def test_equal_tensors_give_equal_bits(device):
    y_RC, g_RC = (x.to(device) for x in pair(3_000, 64))
    assert torch.equal(device_sums(y_RC, g_RC, 256), device_sums(y_RC, g_RC, 256))


def test_the_core_takes_the_sums_as_a_batch():
    y_RC, g_RC = pair(60, 5)
    sums_8C = device_sums(y_RC, g_RC)
    found = through_core(
        5,
        lambda session: arrow.call(
            core().statistics_add_sums, session, 0, 3, 60, arrow.matrix(sums_8C)
        ),
    )
    assert all(torch.equal(sum_C, found[name]) for sum_C, name in zip(sums_8C, NAMES, strict=True))
    assert [set(found[name].tolist()) for name in ("rows", "samples", "batches")] == [
        {60},
        {3},
        {1},
    ]


def test_what_is_not_finite_shows_in_its_channel_and_is_refused_by_the_core():
    for value in (float("nan"), float("inf")):
        y_RC, g_RC = pair(10, 4)
        y_RC[7, 2] = value
        sums_8C = device_sums(y_RC, g_RC, rows_per_block=4)
        assert sums_8C.isfinite().all(0).tolist() == [True, True, False, True]
        with pytest.raises(NonFiniteError):
            through_core(
                4,
                lambda session, sums_8C=sums_8C: arrow.call(
                    core().statistics_add_sums, session, 0, 1, 10, arrow.matrix(sums_8C)
                ),
            )


class LargestTensor(TorchDispatchMode):
    """The elements of the largest new tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and not result._is_view():
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_copy_of_the_whole_is_made(dtype):
    y_RC, g_RC = pair(1_000, 8, dtype)
    before = y_RC.clone(), g_RC.clone()
    with LargestTensor() as largest:
        device_sums(y_RC, g_RC, rows_per_block=10)
    assert largest.elements == 80
    assert torch.equal(y_RC, before[0]) and torch.equal(g_RC, before[1])


def test_refusals():
    y_RC, g_RC = pair(4, 3)
    with pytest.raises(ShapeError, match=r"y is \[4, 3\] and g \[3, 3\]"):
        device_sums(y_RC, g_RC[:3])
    with pytest.raises(ShapeError, match="two matrices"):
        device_sums(y_RC[0], g_RC[0])
    with pytest.raises(DtypeError, match="float32 and g torch.float64"):
        device_sums(y_RC, g_RC.double())
    with pytest.raises(DtypeError, match="floating-point"):
        device_sums(y_RC.int(), g_RC.int())
    with pytest.raises(DeviceError, match="y lies on cpu and g on meta"):
        device_sums(y_RC, g_RC.to("meta"))
