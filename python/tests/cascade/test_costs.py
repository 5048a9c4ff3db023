"""Costs of a cascade as users write them."""

import math

import numpy as np
import pytest

from agflow.cascade.ledger import CascadeCosts, cost_text, read_costs
from agflow.errors import InvalidValueError


@pytest.mark.parametrize(
    "pair", [(0.25, 1.0), [0.25, 1], np.array([0.25, 1]), (np.float32(0.25), np.int8(1))]
)
def test_a_pair_is_a_ratio(pair):
    assert read_costs(pair) == CascadeCosts(0.25, 1.0, unit="x")


def test_costs_with_a_unit_are_kept_and_all_read_well():
    paid = CascadeCosts(4.2, 17, unit="ms")
    assert read_costs(paid) is paid
    texts = [cost_text(*cost) for cost in ((0.25, "x"), (4.2, "ms"), (6.1e5, "MACs"))]
    assert texts == ["0.25x", "4.2 ms", "0.61 M MACs"]


@pytest.mark.parametrize("pair", [0.25, (1,), (1, 2, 3), "ab", ("a", 1), None, {"light": 1}])
def test_what_is_no_pair_is_shown(pair):
    with pytest.raises(InvalidValueError, match=r"costs: got .*expected a pair \(light, heavy\)"):
        read_costs(pair)


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf])
@pytest.mark.parametrize("expert", ["light", "heavy"])
def test_impossible_costs_are_refused(expert, wrong):
    with pytest.raises(InvalidValueError, match=f"the {expert} expert costs .*above 0 and finite"):
        read_costs(CascadeCosts(**{"light": 1, "heavy": 2, expert: wrong}))
