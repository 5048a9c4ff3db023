"""Costs as functions of sizes: Go and Python agree, and torch counts the same."""

import json

import pyarrow as pa
import torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import agflow
from agflow.models.costs import Costs, Product, size
from agflow.pruning import Allocation

LAYERS = {"a": 6, "b": 9, "branch": 1}
small = st.integers(1, 5)
width = st.one_of(
    small.map(size), st.sampled_from("ab").map(size),
    st.tuples(small, st.sampled_from("ab"), st.sampled_from("ab")).map(size),
    st.tuples(st.tuples(small, st.sampled_from("ab")), small).map(lambda terms: size(*terms)),
)  # fmt: skip
times = st.sampled_from([(), ("branch",)])


def scores_of(costs: Costs) -> agflow.Scores:
    """Scores of the layers of ``LAYERS``, of a model of these costs."""
    rows = [(name, u) for name, units in LAYERS.items() for u in range(units)]
    names, units = zip(*rows, strict=True)
    whole = lambda n, kind: pa.array([n] * len(rows), kind)
    columns = {
        "layer": pa.array(names),
        "group": pa.array(["block" if name == "branch" else "conv" for name in names]),
        "unit": pa.array(units, pa.int32()),
        "unit_width": whole(1, pa.int32()),
        "parts": whole(1, pa.int32()),
        "unit_macs": whole(0, pa.int64()),
        "unit_params": whole(0, pa.int64()),
        "score": pa.array([float(u + 1) for u in units]),
    }
    metadata = {
        "agflow.kind": "scores", "agflow.criterion": "agf", "agflow.seed": "0",
        "agflow.model": "drawn", "agflow.model_macs": str(costs.macs()),
        "agflow.model_params": str(costs.params()), "agflow.costs": json.dumps(costs.to_json()),
    }  # fmt: skip
    return agflow.Scores(pa.RecordBatch.from_pydict(columns), metadata)


@st.composite
def products(draw: st.DrawFn) -> Product:
    kind = draw(
        st.sampled_from(["linear", "convolution", "attention", "norm", "pointwise", "parameters"])
    )
    more = {}
    if kind in ("linear", "convolution", "attention"):
        more["inputs"] = draw(width)
    if kind in ("linear", "convolution"):
        more["bias"] = draw(st.booleans())
    if kind == "convolution":
        more |= {"kernel": draw(small), "stride": draw(small)}
        if draw(st.booleans()):
            more["groups"] = draw(width)
    if kind == "attention":
        more["heads"] = draw(width)
    return Product(kind, "p", draw(width), rows=draw(small), times=draw(times), **more)


@settings(deadline=None, max_examples=60)
@given(found=st.lists(products(), min_size=1, max_size=6), ratio=st.floats(0.05, 0.95))
def test_go_and_python_agree_on_the_cost_of_every_plan(found: list[Product], ratio: float) -> None:
    costs = Costs(LAYERS, (Product("linear", "head", size("a"), 1, size("b")), *found))
    plan = agflow.plan(
        scores_of(costs), pruning_ratio=ratio, allocation=Allocation(round_to=1, joint=True)
    )
    kept = {layer.name: layer.kept for layer in plan.planned}
    assert (plan.macs, plan.params) == (costs.macs(kept), costs.params(kept))


@settings(deadline=None, max_examples=30)
@given(
    groups=small, reads=small, emits=small, kernel=st.tuples(small, small), bias=st.booleans(),
    stride=st.integers(1, 3), side=st.integers(5, 9),
)  # fmt: skip
def test_convolutions_cost_what_torch_counts(
    groups: int, reads: int, emits: int, kernel: tuple[int, int], stride: int, side: int, bias: bool
) -> None:
    conv = nn.Conv2d(
        groups * reads, groups * emits, kernel, stride, groups=groups, bias=bias, padding=2
    )
    x = torch.zeros(1, groups * reads, side, side)
    with FlopCounterMode(display=False) as counted:
        y = conv(x)
    product = Product(
        "convolution", "conv", size("a"), rows=y[0, 0].numel(), inputs=size(reads),
        bias=bias, kernel=kernel[0] * kernel[1], stride=stride, groups=size(groups),
    )  # fmt: skip
    costs = Costs({"a": groups * emits}, (product,))
    assert 2 * costs.macs() == counted.get_total_flops()
    assert costs.params() == sum(parameter.numel() for parameter in conv.parameters())
    if groups * emits > 1:
        macs, params = costs.of_unit("a")
        assert macs == product.rows * product.kernel * reads
        assert params == product.kernel * reads + bias
