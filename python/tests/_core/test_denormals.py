"""A process that flushes subnormal numbers to zero gets the same bits, and goes on flushing."""

import json

import numpy as np
import pytest
import torch

from agflow._core import arrow
from agflow._core.loader import core


@pytest.fixture
def flushing():
    """Calls begin and end the flushing of this thread; a CPU that cannot flush skips the test."""
    if not torch.set_flush_denormal(True):
        pytest.skip("skipped: this CPU does not flush subnormal numbers")
    torch.set_flush_denormal(False)
    yield torch.set_flush_denormal
    torch.set_flush_denormal(False)


def subnormals(dtype, channels, seed):
    """[rows, channels] of elements below the least normal number of the dtype."""
    tiny = torch.finfo(dtype).tiny
    values = (
        torch.rand(9, channels, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        - 0.5
    )
    return (values * tiny).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels", [3, 16, 43])
def test_subnormal_elements_count(flushing, dtype, channels):
    y, g = subnormals(dtype, channels, 1), subnormals(dtype, channels, 2)
    want_y, want_yg = (
        np.add.accumulate(np.abs(v))[-1]
        for v in (y.double().numpy(), y.double().numpy() * g.double().numpy())
    )
    assert want_yg.all()
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
        json.dumps({"model": model, "layers": [layer], "workers": 1, "metadata": {}})
    )
    try:
        flushing(True)
        arrow.call(core().statistics_add, number, 0, 1, arrow.matrix(y, "y"), arrow.matrix(g, "g"))
        abs_yg = arrow.call_for_array(
            core().abs_yg, 1, arrow.matrix(y, "y"), arrow.matrix(g, "g")
        ).to_numpy()
        still = (torch.tensor([1e-40]) * 1).view(torch.int32).item()
        flushing(False)
        table = arrow.call_for_batch(core().statistics_table, number)
    finally:
        flushing(False)
        core().statistics_close(number)
    assert still == 0
    assert (abs_yg == want_yg).all()
    assert (table["sum_abs_yg"].to_numpy() == want_yg).all() and (
        table["sum_abs_y"].to_numpy() == want_y
    ).all()
