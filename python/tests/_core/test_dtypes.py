"""Every dtype, row stride and offset gives numpy's float64 sums, bit for bit, by both calls."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import AgflowError, DtypeError, InvalidValueError, NonFiniteError, ShapeError

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


@st.composite
def batches(draw):
    """(y, g) of one dtype: slices of larger tensors, of different row strides and offsets."""
    dtype, rows, channels = (
        draw(st.sampled_from(DTYPES)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 37)),
    )
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def part():
        gap, first, row = draw(st.integers(0, 9)), draw(st.integers(0, 5)), draw(st.integers(0, 3))
        whole = torch.randn(
            row + rows, first + channels + gap, dtype=torch.float64, generator=random
        )
        exponent = 2.0 ** torch.randint(
            -12, 6, whole.shape, generator=random
        )  # float16: subnormal numbers too
        return (whole * exponent).to(dtype)[row:, first : first + channels]

    return part(), part()


def reference(y, g):
    """Per channel sums in float64, row after row."""
    y, g = y.double().numpy(), g.double().numpy()
    yg = y * g
    sums = {
        "sum_abs_yg": np.abs(yg),
        "sum_yg": yg,
        "sum_yg2": yg * yg,
        "sum_abs_y": np.abs(y),
        "sum_y": y,
        "sum_y2": y * y,
        "sum_g2": g * g,
    }
    return {name: np.add.accumulate(values)[-1] for name, values in sums.items()} | {
        "max_abs_yg": np.abs(yg).max(0)
    }


def statistics(channels, *batches, workers=1):
    """The table of one layer's batches."""
    layer = {
        "name": "a",
        "group": "mlp",
        "units": channels,
        "unit_width": 1,
        "unit_macs": 1,
        "unit_params": 1,
    }
    model = {"name": "a", "macs": channels, "params": channels}
    number = core().statistics_open(
        json.dumps({"model": model, "layers": [layer], "workers": workers, "metadata": {}})
    )
    try:
        for y, g in batches:
            arrow.call(
                core().statistics_add, number, 0, 1, arrow.matrix(y, "y"), arrow.matrix(g, "g")
            )
        return arrow.call_for_batch(core().statistics_table, number)
    finally:
        core().statistics_close(number)


def abs_yg(y, g, workers=1):
    return arrow.call_for_array(
        core().abs_yg, workers, arrow.matrix(y, "y"), arrow.matrix(g, "g")
    ).to_numpy()


@settings(max_examples=80, deadline=None)
@given(pair=batches(), workers=st.integers(1, 3))
def test_sums_equal_float64(pair, workers):
    y, g = pair
    expected = reference(y, g)
    table = statistics(y.shape[1], pair, workers=workers)
    for name, sums in expected.items():
        assert (table[name].to_numpy() == sums).all(), name
    assert (abs_yg(y, g, workers) == expected["sum_abs_yg"]).all()


@settings(max_examples=20, deadline=None)
@given(pair=batches())
def test_numpy_gives_the_same(pair):
    y, g = pair
    if y.dtype is not torch.bfloat16:  # numpy alone has none
        assert (abs_yg(y.numpy(), g.numpy()) == abs_yg(y, g)).all()


def test_every_float16_and_bfloat16_is_exact():
    """Each of the finite numbers in a channel of its own."""
    for dtype in (torch.float16, torch.bfloat16):
        every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        finite = every[every.isfinite()][None]
        ones = torch.ones_like(finite)
        assert (abs_yg(finite, ones) == finite.double().abs().numpy()[0]).all()
        assert (
            statistics(finite.shape[1], (finite, ones))["sum_y"].to_numpy()
            == finite.double().numpy()[0]
        ).all()


def test_batches_of_different_dtypes_add_up():
    one_of_each = [
        (torch.full((2, 3), 1.5, dtype=dtype), torch.full((2, 3), 2.0, dtype=dtype))
        for dtype in DTYPES
    ]
    assert (statistics(3, *one_of_each)["sum_yg"].to_numpy() == 4 * 2 * 3.0).all()


@pytest.mark.parametrize(
    "add", [lambda y, g: statistics(3, (y, g)), abs_yg], ids=["statistics_add", "abs_yg"]
)
def test_y_and_g_must_fit(add):
    ones = torch.ones(2, 3)
    for other, error in (
        (ones.bfloat16(), DtypeError),
        (ones.double(), DtypeError),
        (torch.ones(3, 3), ShapeError),
        (torch.ones(2, 4), ShapeError),
    ):
        with pytest.raises(error):
            add(ones, other)
        with pytest.raises(AgflowError):
            add(other, ones)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_values_are_refused(dtype, bad):
    y = torch.ones(5, 7, dtype=dtype)
    y[3, 2] = bad
    for pair in ((y, torch.ones_like(y)), (torch.ones_like(y), y)):
        with pytest.raises(NonFiniteError, match="row 3, channel 2"):
            statistics(7, pair)
        with pytest.raises(NonFiniteError):
            abs_yg(*pair)


def test_bfloat16_of_numpy():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    y = np.arange(12).reshape(4, 3).astype(ml_dtypes.bfloat16)
    assert (abs_yg(y, y) == (y.astype(np.float64) ** 2).sum(0)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_of_every_dtype(dtype):
    w = torch.arange(1, 7, dtype=torch.float64).reshape(2, 3).to(dtype)
    layer = {
        "name": "a",
        "group": "mlp",
        "units": 3,
        "unit_width": 1,
        "unit_macs": 1,
        "unit_params": 1,
    }
    number = core().statistics_open(
        json.dumps(
            {
                "model": {"name": "a", "macs": 3, "params": 3},
                "layers": [layer],
                "workers": 1,
                "metadata": {},
            }
        )
    )
    try:
        assert arrow.call(core().statistics_add_weight, number, 0, 1, arrow.matrix(w)) == 6
        assert (
            arrow.call(
                core().statistics_add_weight_gradient,
                number,
                0,
                1,
                arrow.matrix(w),
                arrow.matrix(w),
            )
            == 6
        )
        table = arrow.call_for_batch(core().statistics_table, number)
    finally:
        core().statistics_close(number)
    assert table["sum_abs_w"].to_pylist() == [5, 7, 9] and table["sum_wg"].to_pylist() == [
        17,
        29,
        45,
    ]
    assert table["weight_gradients"].to_pylist() == [2, 2, 2]


def test_sums_of_a_device(session, pairs):
    """Sums made elsewhere count like the batch they were made from."""
    y, g = pairs[0]
    sums = reference(torch.from_numpy(y), torch.from_numpy(g))
    order = [
        "sum_abs_yg",
        "sum_yg",
        "sum_yg2",
        "sum_abs_y",
        "sum_y",
        "sum_y2",
        "sum_g2",
        "max_abs_yg",
    ]
    device = torch.from_numpy(np.stack([sums[name] for name in order]))
    assert arrow.call(
        core().statistics_add_sums, session, 0, 2, len(y), arrow.matrix(device, "sums")
    ) == len(y)
    table = arrow.call_for_batch(core().statistics_table, session)
    for name in order:
        assert (table[name].to_numpy()[:6] == sums[name]).all(), name
    assert (
        table["rows"][0].as_py() == 10
        and table["samples"][0].as_py() == 2
        and table["batches"][0].as_py() == 1
    )


def test_sums_that_no_device_makes_are_refused(session):
    good = torch.ones(8, 6, dtype=torch.float64)
    for spoilt, error in (
        (good.float(), DtypeError),
        (good[:7], ShapeError),
        (torch.ones(8, 5, dtype=torch.float64), ShapeError),
        (good * torch.nan, NonFiniteError),
        (-good, InvalidValueError),
    ):
        with pytest.raises(error):
            arrow.call(core().statistics_add_sums, session, 0, 1, 3, arrow.matrix(spoilt))
    assert arrow.call_for_batch(core().statistics_table, session)["batches"].to_pylist() == [0] * 8


def test_read_limit_reads_every_word():
    value = torch.zeros(9, 12)[:, :7]
    assert arrow.call(core().read_limit, 1, arrow.matrix(value)) == 0
    value[8, 6] = 1
    assert arrow.call(core().read_limit, 1, arrow.matrix(value)) != 0
