"""The latency table has a full grid for every product, and predicts the time of pruned models."""

import copy
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import timm
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer

import agflow
from agflow.bench import layers
from agflow.errors import InvalidValueError
from agflow.evaluation.timing import interleaved
from agflow.models import adapter_for
from agflow.models.self_attention import attend
from agflow.pruning import Allocation


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=64, patch_size=8, num_classes=10, embed_dim=96, depth=2, num_heads=4
    ).eval()


@pytest.fixture(scope="module")
def table(vit):
    return layers.measure(vit, batch=2, rounds=1)


def latency_ms(table, costs, kept):
    """The planner's formula: the model gets faster in the proportion in which its products do."""
    grids = monotone_grids(table)
    total = lambda sizes: sum(
        product_ms(product, costs["sizes"], sizes, grids)
        for product in costs["products"]
        if product["kind"] != "parameters"
    )
    return table.model_ms * (total({**costs["sizes"], **kept}) / total(costs["sizes"]))


def monotone_grids(table):
    """{shape: (axes, ms over them)}; a larger size is never faster."""
    columns, found = table.batch.to_pydict(), {}
    for shape in dict.fromkeys(columns["shape"]):
        rows = [i for i, name in enumerate(columns["shape"]) if name == shape]
        axes = {
            field: sorted({columns[field][i] for i in rows})
            for field in ("inputs", "outputs", "heads")
        }
        ms = np.zeros([len(axis) for axis in axes.values()])
        for i in rows:
            ms[tuple(axis.index(columns[field][i]) for field, axis in axes.items())] = columns[
                "ms"
            ][i]
        assert ms.size == len(rows) and (ms > 0).all(), shape
        for axis in range(3):
            ms = np.maximum.accumulate(ms, axis)
        found[shape] = axes, ms
    return found


def size(product, field, sizes):
    return sum(
        coefficient * np.prod([sizes[layer] for layer in names], dtype=int)
        for coefficient, *names in product.get(field, [])
    )


def product_ms(product, dense, sizes, grids):
    named = [
        int(size(product, field, dense))
        for field in ("inputs", "outputs", "heads")
        if product.get(field)
    ]
    axes, ms = grids[f"{product['kind']} {'x'.join(map(str, [product['rows'], *named]))}"]
    for field, axis in axes.items():  # the first axis goes at each step
        at = size(product, field, sizes)
        ms = np.array(
            [np.interp(at, axis, column) for column in ms.reshape(len(axis), -1).T]
        ).reshape(ms.shape[1:])
    return float(ms) * np.prod([sizes[branch] for branch in product.get("times", [])])


def test_every_product_has_a_full_grid(vit, table):
    assert table.batch.schema.types == [
        pa.utf8(),
        pa.int64(),
        pa.utf8(),
        pa.int64(),
        pa.int64(),
        pa.int64(),
        pa.float64(),
    ]
    assert table.metadata["agflow.batch"] == "2" and table.metadata["agflow.device"] == "cpu"
    costs, grids = adapter_for(vit).costs(vit), monotone_grids(table)
    assert latency_ms(table, costs, {}) == table.model_ms
    assert latency_ms(table, costs, {"blocks.0.mlp": 96}) < table.model_ms
    assert len(grids) == 9
    axes, _ = grids["linear 65x96x384"]
    assert axes == {
        "inputs": [16, 32, 48, 64, 80, 96],
        "outputs": [64, 128, 192, 256, 320, 384],
        "heads": [0],
    }
    assert grids["linear 1x96x10"][0]["outputs"] == [10]  # no cut moves the classes
    assert grids["attention 65x96x96x4"][0]["heads"] == [
        1,
        2,
        4,
    ]  # whole heads share every width evenly
    assert "attention 65x96x96x4" in layers.text(table)


def test_the_table_is_a_file(table, tmp_path):
    table.save(tmp_path / "latency.arrow")
    assert agflow.pruning.LatencyTable.load(tmp_path / "latency.arrow").batch.equals(table.batch)


def test_dropped_branches_take_no_time(vit, table):
    costs = adapter_for(vit).costs(vit)
    branches = {name: 0 for name in costs["sizes"] if name.endswith(".branch")}
    assert latency_ms(table, costs, branches) < 0.5 * table.model_ms


@pytest.mark.parametrize(("qk", "v"), [(8, 8), (5, 8), (8, 3)])
def test_attention_of_unequal_widths(qk, v):
    """Filled up with zeros or not, attention is softmax(q kᵀ / √width) v, head by head."""
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, 7, 3 * qk, dtype=torch.float64)
    values = torch.randn(2, 7, 3 * v, dtype=torch.float64)
    heads = [
        (q[..., n * qk : (n + 1) * qk] @ k[..., n * qk : (n + 1) * qk].mT / 8**0.5).softmax(-1)
        @ values[..., n * v : (n + 1) * v]
        for n in range(3)
    ]
    torch.testing.assert_close(attend(q, k, values, 3, 8), torch.cat(heads, -1))


@pytest.mark.bench
def test_predicted_latency_is_near_the_measured_one():
    """A ViT-Tiny pruned in five ways; generous, with three attempts, for busy machines."""
    vit = timm.create_model("vit_tiny_patch16_224").eval()
    adapter = adapter_for(vit)
    costs, x = adapter.costs(vit), torch.randn(1, 3, 224, 224)
    cuts = {
        (hidden, heads): cut(adapter, vit, hidden, heads)
        for hidden, heads in ((384, 3), (192, 3), (768, 2), (384, 2), (192, 1))
    }
    for _ in range(3):
        found = layers.measure(vit, batch=1, rounds=3)
        with torch.inference_mode():
            times = interleaved(
                {
                    "dense": lambda: vit(x),
                    **{name: lambda light=light: light(x) for name, (light, _) in cuts.items()},
                },
                rounds=5,
            )
        predicted = {
            name: latency_ms(found, costs, kept) / found.model_ms
            for name, (_, kept) in cuts.items()
        }
        measured = {name: times[name].over(times["dense"]).median for name in cuts}
        if predicted == pytest.approx(measured, rel=0.3):
            break
    assert predicted == pytest.approx(measured, rel=0.3)


@pytest.mark.bench
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_the_predicted_latency_of_convolutions_is_near_the_measured_one(name):
    """At two budgets; generous, with three attempts, for busy machines."""
    model, x = torchvision.models.get_model(name).eval(), torch.randn(1, 3, 224, 224)
    statistics = agflow.calibrate(model, [(x, torch.zeros(1).long())])
    for _ in range(3):
        found = layers.measure(model, batch=1, rounds=3)
        plans = [
            agflow.plan(statistics, macs=macs, allocation=Allocation(latency=found))
            for macs in (0.7, 0.45)
        ]
        cuts = [agflow.prune(model, plan, compensate="none") for plan in plans]
        calls = {i: lambda light=light: light(x) for i, light in enumerate(cuts)}
        with torch.inference_mode():
            times = interleaved({"dense": lambda: model(x), **calls}, rounds=5)
        predicted = [plan.report["latency_ms"] / found.model_ms for plan in plans]
        measured = [times[i].over(times["dense"]).median for i in calls]
        if predicted == pytest.approx(measured, rel=0.3):
            break
    assert predicted == pytest.approx(measured, rel=0.3)


def cut(adapter, vit, hidden, heads):
    light, kept = copy.deepcopy(vit), {}
    for layer in adapter.layers(vit):
        keep = {"mlp": hidden, "heads": heads}.get(layer.kind, layer.units)
        if keep < layer.units:
            adapter.cut(light, layer, torch.arange(keep))
            kept[layer.name] = keep
    return light.eval(), kept


def test_refusals(vit):
    with pytest.raises(InvalidValueError, match="batch is 0"):
        layers.measure(vit, batch=0)


@pytest.mark.bench
def test_the_command_writes_the_table(tmp_path):
    command = [
        sys.executable,
        "-m",
        "agflow",
        "bench",
        "layers",
        "--batch",
        "1",
        "--rounds",
        "1",
        "--output",
        str(tmp_path / "latency.arrow"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    table = agflow.pruning.LatencyTable.load(tmp_path / "latency.arrow")
    assert f"{len(table)} sizes" in done.stdout and table.model_ms > 0
    refused = subprocess.run(
        [*command, "--device", "cuda:99"], capture_output=True, text=True, timeout=240
    )
    assert refused.returncode == 3 and "models cannot compute on device 'cuda:99'" in refused.stderr


CONVOLUTIONS = {
    "sizes": {"mid": 32, "stage": 24},
    "products": [
        {
            "kind": "convolution",
            "name": "conv1",
            "rows": 36,
            "inputs": [[1, "stage"]],
            "outputs": [[1, "mid"]],
            "kernel": 9,
            "stride": 2,
        },
        {
            "kind": "convolution",
            "name": "depthwise",
            "rows": 36,
            "inputs": [[1]],
            "outputs": [[1, "mid"]],
            "groups": [[1, "mid"]],
            "kernel": 9,
            "stride": 1,
        },
        {
            "kind": "convolution",
            "name": "grouped",
            "rows": 30,
            "inputs": [[8]],
            "outputs": [[1, "mid"]],
            "groups": [[4]],
            "kernel": 3,
            "stride": 1,
        },
        {"kind": "parameters", "name": "bn", "outputs": [[2, "mid"]], "rows": 1},
    ],
}


def test_convolutions_are_measured_over_what_a_cut_changes():
    """Inputs and outputs of one group, and the groups: of a depthwise one these alone."""
    found = {shape.name: shape for shape in layers.shapes_of(CONVOLUTIONS)}
    assert list(found) == [
        "convolution 36x24x32x1x9x2",
        "convolution 36x1x1x32x9x1",
        "convolution 30x8x8x4x3x1",
    ]
    plain, depthwise, grouped = found.values()
    assert plain.inputs == (8, 16, 24) and plain.outputs == (8, 16, 24, 32)
    assert plain.heads == (1,) and (plain.kernel_size, plain.seen_size) == ((3, 3), (13, 13))
    assert (depthwise.inputs, depthwise.outputs) == ((1,), (1,))
    assert depthwise.heads == (8, 16, 24, 32)
    assert grouped.outputs == (1, 3, 4, 5, 7, 8) and grouped.heads == (4,)
    assert (grouped.map_size, grouped.kernel_size, grouped.seen_size) == ((5, 6), (1, 3), (5, 8))


def test_every_size_of_a_convolution_is_one_that_runs():
    shapes = layers.shapes_of(CONVOLUTIONS)
    with torch.inference_mode():
        calls = layers.calls_of(shapes, 2, torch.zeros(1, dtype=torch.float64))
        for (shape, (_, o, groups)), call in calls.items():
            result = call()
            assert result.shape == (2, o * groups, *shape.map_size), shape
            assert result.dtype is torch.float64
