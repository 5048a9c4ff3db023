"""Head dimensions, stream channels and branches of every family, in any mix with the rest.

They are measured, cut, checked, counted and saved.
"""

import copy
import json
import math
from collections import defaultdict
from functools import partial

import numpy as np
import pytest
import small_vits
import timm.layers
import torch
import torch_pruning
from hypothesis import given, settings, strategies as st
from small_vits import images_for, made
from timm.models.deit import VisionTransformerDistilled
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import agflow
from agflow.calibration.hooks import capture
from agflow.calibration.loss import per_image_loss
from agflow.errors import InvalidValueError, UnknownLayerError
from agflow.models import adapter_for, build, count_macs, count_params, describe, logits_of
from agflow.models.expert import load_expert, save_expert
from agflow.models.self_attention import SelfAttention
from agflow.models.slicing import cut_group
from agflow.pruning import reconstruction, residual_blocks, sequential
from agflow.pruning.masks import masked
from agflow.pruning.pruner import prune

GROUPS = "mlp", "heads", "head_dim", "embed", "block"
MIXES = [
    ("head_dim",),
    ("heads", "head_dim"),
    ("embed",),
    ("mlp", "embed"),
    ("block",),
    ("block", "heads", "mlp"),
    GROUPS,
    GROUPS,
]

of_timm, of_torchvision, of_transformers = (
    partial(family, depth=3)
    for family in (small_vits.of_timm, small_vits.of_torchvision, small_vits.of_transformers)
)
FAMILIES = {
    "timm": of_timm,
    "timm_distilled": lambda: of_timm(VisionTransformerDistilled),
    "timm_qk_norm": lambda: of_timm(qk_norm=True, drop_path_rate=0.1),
    "timm_swiglu": lambda: of_timm(mlp_layer=timm.layers.SwiGLU, act_layer=nn.SiLU, qkv_bias=False),
    "timm_dinov2": lambda: of_timm(
        mlp_layer=timm.layers.SwiGLUPacked,
        act_layer=nn.SiLU,
        init_values=0.1,
        reg_tokens=2,
        no_embed_class=True,
    ),
    "timm_average_pool": lambda: of_timm(global_pool="avg", class_token=False, pre_norm=True),
    "timm_no_last_norm": lambda: of_timm(final_norm=False, proj_bias=False),
    "torchvision": lambda: of_torchvision(representation_size=16),
    "transformers_vit": lambda: of_transformers(
        attn_implementation="eager", qkv_bias=False, image_size=(32, 40)
    ),
    "transformers_deit": lambda: of_transformers("DeiT", "WithTeacher"),
}


def make(name):
    return made(FAMILIES[name])


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    """One model of each family for read-only tests."""
    return make(request.param)


def all_layers(model):
    return {layer.name: layer for layer in adapter_for(model).layers(model)}


def readers(model, layer_name):
    """The linear layer that ends a branch, by the name of one of its layers."""
    names = ("proj", "fc2", "out_proj", "3", "o_proj")
    inside = model.get_submodule(
        layer_name.removesuffix(".branch").removesuffix(".v").removesuffix(".qk")
    )
    return next(
        inside.get_submodule(name) for name in names if name in dict(inside.named_children())
    )


def rows_of_queries_and_keys(model, layer_name):
    """(parameter, first row) of everything that writes queries and keys."""
    attention, dim = model.get_submodule(layer_name.removesuffix(".qk")), 32
    if isinstance(attention, nn.MultiheadAttention):
        return [
            (parameter, row)
            for parameter in (attention.in_proj_weight, attention.in_proj_bias)
            for row in (0, dim)
        ]
    linears = (
        [(attention.qkv, 0), (attention.qkv, dim)]
        if hasattr(attention, "qkv")
        else [(attention.q_proj, 0), (attention.k_proj, 0)]
    )
    return [
        (parameter, row)
        for linear, row in linears
        for parameter in linear.parameters(recurse=False)
    ]


class NormOfSome(nn.Module):
    """A LayerNorm over some channels by its formula, zeros in the others."""

    def __init__(self, norm, keep):
        super().__init__()
        self.norm, self.keep = norm, keep

    def forward(self, x):
        kept = x[..., self.keep]
        centred = kept - kept.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + self.norm.eps).sqrt()
        out = torch.zeros_like(x)
        out[..., self.keep] = normed * self.norm.weight[self.keep] + self.norm.bias[self.keep]
        return out


@torch.no_grad()
def with_zeros(model, kept):
    """A dense copy with zero weights of removed units, and norms over the kept channels."""
    model, layers = copy.deepcopy(model), all_layers(model)
    for name, keep in kept.items():
        layer, gone = layers[name], np.setdiff1d(np.arange(layers[name].units), keep)
        if layer.kind == "embed":
            norms = [
                (path, module)
                for path, module in model.named_modules()
                if isinstance(module, nn.LayerNorm) and module.normalized_shape == (32,)
            ]
            for path, norm in norms:
                parent, _, leaf = path.rpartition(".")
                setattr(model.get_submodule(parent), leaf, NormOfSome(norm, torch.from_numpy(keep)))
            if isinstance(getattr(model, "norm", None), nn.Identity) and isinstance(
                getattr(model, "fc_norm", None), nn.Identity
            ):
                model.head.weight[:, gone] = 0
        elif layer.kind == "block":
            if len(gone):
                for parameter in readers(model, name).parameters():
                    parameter.zero_()
        elif name.endswith(".qk"):
            for parameter, row in rows_of_queries_and_keys(model, name):
                parameter[row + gone] = 0
        else:
            columns = (gone[:, None] * layer.unit_width + np.arange(layer.unit_width)).flatten()
            readers(model, name).weight[:, columns] = 0
    return model


def cost_of(costs, sizes, what):
    """Contract B evaluated by the book, from the JSON."""
    sizes = {**costs["sizes"], **sizes}
    value = lambda terms: sum(
        factor * math.prod(sizes[name] for name in names) for factor, *names in terms
    )
    total = 0
    for product in costs["products"]:
        rows, inputs, outputs = (
            product["rows"],
            value(product.get("inputs", [])),
            value(product["outputs"]),
        )
        macs, params = {
            "linear": (rows * inputs * outputs, (inputs + product.get("bias", False)) * outputs),
            "attention": (rows * rows * (inputs + outputs), 0),
            "pointwise": (0, 0),
            "norm": (0, 2 * outputs),
            "parameters": (0, outputs),
        }[product["kind"]]
        total += {"macs": macs, "params": params}[what] * math.prod(
            sizes[name] for name in product.get("times", [])
        )
    return total


def counted_macs(model):
    """torch's own count, without the zeros that pad queries or values for fused attention."""
    counter = FlopCounterMode(display=False)
    with counter:
        model(images_for(model, 1))
    unequal = [module for module in model.modules() if type(module) is SelfAttention]
    tokens = next(
        (
            product["rows"]
            for product in adapter_for(model).costs(model)["products"]
            if product["kind"] == "attention"
        ),
        0,
    )
    zeros = sum(
        module.num_heads
        * (2 * max(module.qk_width, module.v_width) - module.qk_width - module.v_width)
        for module in unequal
    )
    return counter.get_total_flops() // 2 - tokens**2 * zeros


@given(seed=st.integers(0, 2**32 - 1), mix=st.sampled_from(MIXES))
@settings(max_examples=6, deadline=None)
def test_a_cut_equals_zeros_in_the_whole_model_costs_what_was_said_and_comes_back(
    family, plan_of, random_keep, seed, mix
):
    kept, images, layers = random_keep(family, seed, mix), images_for(family), all_layers(family)
    before = {name: tensor.clone() for name, tensor in family.state_dict().items()}
    light = prune(family, plan_of(family, kept), compensate="none")
    with torch.no_grad():
        expected_BK, light_BK = (
            logits_of(with_zeros(family, kept)(images)),
            logits_of(light(images)),
        )
        assert (light_BK - expected_BK).abs().max() <= 1e-5 * expected_BK.abs().max()
        with masked(
            adapter_for(family),
            family,
            [(layers[name], torch.from_numpy(keep)) for name, keep in kept.items()],
        ):
            torch.testing.assert_close(logits_of(family(images)), expected_BK, rtol=1e-4, atol=1e-5)
    assert (
        all(torch.equal(tensor, before[name]) for name, tensor in family.state_dict().items())
        and family.state_dict().keys() == before.keys()
    )

    costs, sizes = (
        adapter_for(family).costs(family),
        {name: len(keep) // layers[name].parts for name, keep in kept.items()},
    )
    assert count_macs(light) == counted_macs(light) == cost_of(costs, sizes, "macs")
    assert (
        count_params(light)
        == cost_of(costs, sizes, "params")
        == cost_of(adapter_for(light).costs(light), {}, "params")
    )
    left = {layer.name: layer.units // layer.parts for layer in adapter_for(light).layers(light)}
    for name, layer in layers.items():
        stem = name.rpartition(".")[0] if layer.kind in ("head_dim", "block") else name
        assert left.get(name, 0) == (
            0 if sizes.get(f"{stem}.branch") == 0 else sizes.get(name, layer.units // layer.parts)
        )

    rebuilt = build(json.loads(json.dumps(describe(light)))).eval()
    rebuilt.load_state_dict(light.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(logits_of(rebuilt(images)), light_BK) and describe(rebuilt) == describe(
            light
        )


def test_unit_costs_are_what_leaves_with_one_unit(family):
    costs = adapter_for(family).costs(family)
    assert json.loads(json.dumps(costs)) == costs and count_macs(family) == counted_macs(
        family
    ) == cost_of(costs, {}, "macs")
    assert count_params(family) == cost_of(costs, {}, "params") and set(costs["sizes"]) >= set(
        all_layers(family)
    )
    for layer in adapter_for(family).layers(family):
        assert layer.units == costs["sizes"][layer.name] * layer.parts and (layer.parts > 1) == (
            layer.kind == "head_dim"
        )
        less = {layer.name: costs["sizes"][layer.name] - 1}
        for what, unit in (("macs", layer.unit_macs), ("params", layer.unit_params)):
            assert cost_of(costs, {}, what) - cost_of(costs, less, what) == unit * layer.parts


def test_groups_are_offered_where_they_make_sense(family):
    layers = all_layers(family)
    blocks = 3
    counts = defaultdict(int)
    for layer in layers.values():
        counts[layer.kind] += 1
    with_norm = any(
        name.endswith("q_norm") and isinstance(module, nn.LayerNorm)
        for name, module in family.named_modules()
    )
    assert counts == {
        "embed": 1,
        "heads": blocks,
        "mlp": blocks,
        "block": 2 * blocks,
        "head_dim": blocks if with_norm else 2 * blocks,
    }
    assert all(
        bool(layer.reader) == (layer.kind in ("mlp", "heads") or layer.name.endswith(".v"))
        for layer in layers.values()
    )


def plain_autograd(model, images, labels):
    """{layer: [(y, g) of every tap]} in float64, by hooks of the test's own."""
    model = copy.deepcopy(model).double().requires_grad_(True)
    seen = defaultdict(list)

    def keep(name):
        def hook(y):
            y.retain_grad()
            seen[name].append(y)

        return hook

    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.LayerNorm) and module.normalized_shape == (32,)
    ]
    last = (
        []
        if any(isinstance(getattr(model, name, None), nn.LayerNorm) for name in ("norm", "fc_norm"))
        or not hasattr(model, "norm")
        else [model.head]
    )
    for reading in (*norms, *last):
        reading.register_forward_pre_hook(lambda _, x: keep("embed")(x[0]))
    for name, layer in all_layers(model).items():
        if layer.kind == "block":
            readers(model, name).register_forward_hook(lambda *call, name=name: keep(name)(call[2]))
        if name.endswith(".qk"):
            attention = model.get_submodule(name.removesuffix(".qk"))
            linear = getattr(attention, "qkv", None) or getattr(attention, "q_proj", None)
            if linear is not None:
                linear.register_forward_hook(lambda *call, name=name: keep(name)(call[2]))
        if name.endswith(".v"):
            readers(model, name).register_forward_pre_hook(lambda _, x, name=name: keep(name)(x[0]))
    with adapter_for(model).watchable(model):
        per_image_loss(logits_of(model(images.double())), labels).backward()
    return model, {name: [(y.detach(), y.grad) for y in ys] for name, ys in seen.items()}


def test_statistics_of_the_new_groups_against_float64(family):
    images, labels = images_for(family, 6), torch.arange(6)
    batches = [(images[:4], labels[:4]), (images[4:], labels[4:])]
    statistics = agflow.calibrate(
        family,
        batches,
        groups=("head_dim", "embed", "block"),
        weight_gradients=True,
    )
    model, seen = plain_autograd(family, images, labels)
    column = lambda name, layer: statistics.columns[name][statistics.rows_of(layer)]
    layers = {
        name: layer
        for name, layer in all_layers(family).items()
        if layer.kind in ("head_dim", "embed", "block")
    }
    assert [rows.name for rows in statistics.layers] == list(layers)
    assert list(column("parts", "embed")) == [1] * 32 and json.loads(
        statistics.metadata["agflow.costs"]
    ) == adapter_for(family).costs(family)
    for name, layer in layers.items():
        assert set(column("samples", name)) == {6} and set(column("batches", name)) == {2}
        if name in seen:
            pairs = [
                tuple(x[..., :32].flatten(0, -2) for x in pair) for pair in seen[name]
            ]  # of a fused projection the queries come first
            y_RC, g_RC = (torch.cat(side) for side in zip(*pairs, strict=True))
            per_unit = lambda x_RC, n=layer.units: x_RC.sum(0).reshape(n, -1).sum(1).numpy()
            assert set(column("rows", name)) == {len(y_RC)}
            for values, of in (
                ((y_RC * g_RC).abs(), "sum_abs_yg"),
                (y_RC.square(), "sum_y2"),
                (g_RC.square(), "sum_g2"),
            ):
                np.testing.assert_allclose(
                    column(of, name),
                    per_unit(values),
                    rtol=2e-4,
                    atol=1e-6 * float(values.sum()),
                    err_msg=f"{of} of {name}",
                )
            np.testing.assert_allclose(
                column("sum_yg", name),
                per_unit(y_RC * g_RC),
                atol=2e-4 * float((y_RC * g_RC).abs().sum()),
            )
        if name.endswith(
            ".qk"
        ):  # q = W x + b, so that Σ q ∂L/∂q = Σ W ∂L/∂W + b ∂L/∂b, in torchvision's attention, too
            products = [
                (p * p.grad)[row : row + 32].reshape(32, -1).sum(1)
                for p, row in rows_of_queries_and_keys(model, name)
                if row == 0
                and "k_proj" not in next(n for n, other in model.named_parameters() if other is p)
            ]
            np.testing.assert_allclose(
                column("sum_yg", name), sum(products).detach().numpy(), rtol=1e-3, atol=1e-4
            )
        attached = adapter_for(model).weights(model, layer)
        gradients = adapter_for(model).weights(_gradients_of(model), layer)
        expected_U = (
            sum(
                (w * g).sum(1 - axis).reshape(layer.units, -1).sum(1)
                for (w, axis), (g, _) in zip(attached, gradients, strict=True)
            )
            .detach()
            .numpy()
        )
        np.testing.assert_allclose(
            column("sum_wg", name),
            expected_U,
            rtol=1e-3,
            atol=1e-4,
            err_msg=f"weight gradients of {name}",
        )
    for criterion in agflow.criteria():
        assert np.isfinite(agflow.score(statistics, criterion).columns["score"]).all()


def _gradients_of(model):
    """The model with every parameter's gradient in its place."""
    return copy.deepcopy(
        model,
        {id(p): torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()},
    )


def test_the_stream_is_seen_place_after_place_within_an_image():
    """The rows of an image stay together, so that dumped batches hold the same rows."""
    model = make("timm_average_pool")
    layer, found = all_layers(model)["embed"], []
    assert [tap.module for tap in layer.taps] == [
        "norm_pre",
        *(f"blocks.{i}.norm{n}" for i in range(3) for n in (1, 2)),
        "fc_norm",
    ]
    for batch in images_for(model).split((3, 1)):
        with capture(
            model, [layer], lambda _, count, y, g: found.append((count, y.clone(), g.clone()))
        ):
            per_image_loss(model(batch), torch.zeros(len(batch), dtype=torch.int64)).backward()
    rows = 7 * 16 + 1
    assert [(count, len(y), len(g)) for count, y, g in found] == [
        (3, 3 * rows, 3 * rows),
        (1, rows, rows),
    ]
    with capture(
        model, [layer], lambda _, count, y, g: found.append((count, y.clone(), g.clone()))
    ):
        per_image_loss(model(images_for(model)), torch.zeros(4, dtype=torch.int64)).backward()
    torch.testing.assert_close(
        torch.cat([y for _, y, _ in found[:2]]), found[2][1], rtol=1e-4, atol=1e-5
    )


def test_experts_of_all_groups_come_back_to_the_bit_and_are_cut_again(
    family, plan_of, random_keep, tmp_path
):
    images = images_for(family)
    once = prune(family, plan_of(family, random_keep(family, 4, GROUPS)), [(images, None)])
    save_expert(once, tmp_path / "once")
    loaded = load_expert(tmp_path / "once")
    kept = random_keep(once, 5, GROUPS)
    twice, of_loaded = (
        prune(model, plan_of(model, kept), [(images, None)]) for model in (once, loaded)
    )
    with torch.no_grad():
        assert torch.equal(logits_of(loaded(images)), logits_of(once(images)))
        assert torch.equal(logits_of(twice(images)), logits_of(of_loaded(images)))
    assert count_macs(twice) == counted_macs(twice) < count_macs(once) < count_macs(family)
    twice.train()
    per_image_loss(logits_of(twice(images)), torch.arange(4)).backward()
    assert all(parameter.grad is not None for parameter in twice.parameters())


def test_two_cuts_are_the_cut_of_both(plan_of):
    model = make("timm")
    first = {
        "embed": np.arange(2, 30),
        "blocks.1.attn": [0, 2, 3],
        "blocks.1.attn.v": np.r_[0:6, 8:14, 16:22, 24:30],
        "blocks.1.attn.qk": np.r_[1:8, 9:16, 17:24, 25:32],
    }
    then = {
        "embed": np.arange(20),
        "blocks.1.attn": [1, 2],
        "blocks.1.attn.v": np.r_[0:4, 6:10, 12:16],
        "blocks.0.mlp.branch": [],
    }
    both = {
        "embed": np.arange(2, 22),
        "blocks.1.attn": [2, 3],
        "blocks.1.attn.v": np.r_[0:4, 8:12, 16:20, 24:28],
        "blocks.1.attn.qk": first["blocks.1.attn.qk"],
        "blocks.0.mlp.branch": [],
    }
    once = prune(model, plan_of(model, first), compensate="none")
    twice, at_once = (
        prune(once, plan_of(once, then), compensate="none"),
        prune(model, plan_of(model, both), compensate="none"),
    )
    assert describe(twice) == describe(at_once)
    assert all(
        torch.equal(tensor, twice.state_dict()[name])
        for name, tensor in at_once.state_dict().items()
    )


@pytest.mark.parametrize("cut", ["mlp", "embed", "heads"])
def test_torch_prunings_dependency_graph_cuts_the_same(plan_of, cut):
    """Its groups of coupled layers, pruned by it, give every parameter of ours."""
    model = make("timm")
    theirs, gone = copy.deepcopy(model), [1, 5, 18]
    root, prune_root, kept = {
        "mlp": (
            theirs.blocks[1].mlp.fc1,
            torch_pruning.prune_linear_out_channels,
            {"blocks.1.mlp": np.delete(np.arange(64), gone)},
        ),
        "embed": (
            theirs.patch_embed.proj,
            torch_pruning.prune_conv_out_channels,
            {"embed": np.delete(np.arange(32), gone)},
        ),
        "heads": (
            theirs.blocks[1].attn.qkv,
            torch_pruning.prune_linear_out_channels,
            {"blocks.1.attn": [0, 1, 3]},
        ),
    }[cut]
    graph = torch_pruning.DependencyGraph().build_dependency(
        theirs,
        images_for(model, 1),
        unwrapped_parameters=[(theirs.cls_token, 2), (theirs.pos_embed, 2)],
    )
    graph.get_pruning_group(
        root, prune_root, list(range(16, 24)) if cut == "heads" else gone
    ).prune()
    ours = prune(model, plan_of(model, kept), compensate="none")
    assert {name: tensor.shape for name, tensor in theirs.state_dict().items()} == {
        name: tensor.shape for name, tensor in ours.state_dict().items()
    }
    assert all(
        torch.equal(tensor, ours.state_dict()[name]) for name, tensor in theirs.state_dict().items()
    )
    if cut == "heads":  # which it leaves to its user
        theirs.blocks[1].attn.num_heads, theirs.blocks[1].attn.attn_dim = 3, 24
    with torch.no_grad():
        torch.testing.assert_close(
            ours(images_for(model)), theirs(images_for(model)), rtol=1e-5, atol=1e-5
        )


def test_a_dropped_branch_leaves_nothing(family, plan_of):
    """Not a parameter, not a layer, and without both the block hands on what it got."""
    layers = all_layers(family)
    gone = [
        name
        for name in layers
        if name.endswith(".branch") and any(part in name for part in (".1.", "_1."))
    ]
    light = prune(family, plan_of(family, {name: [] for name in gone}), compensate="none")
    block = light.get_submodule(gone[0].removesuffix(".branch").rpartition(".")[0])
    x = torch.randn(2, 5, 32)
    assert not list(block.parameters()) and block(x) is x
    assert count_params(family) - count_params(light) == sum(
        layers[name].unit_params for name in gone
    )
    assert not any(
        name.startswith(stem.removesuffix(".branch")) for name in all_layers(light) for stem in gone
    )


@pytest.mark.parametrize("mix", [("embed",), ("block",), ("head_dim",), GROUPS], ids="+".join)
@pytest.mark.parametrize("name", ["timm_dinov2", "torchvision", "transformers_vit"])
def test_sequential_reconstruction_helps_every_group(name, plan_of, random_keep, mix):
    model = make(name)
    images, kept = images_for(model, 12), random_keep(model, 9, mix)
    if "embed" in mix:
        kept["embed"] = np.arange(24)
    if "block" in mix:
        kept[next(name for name in all_layers(model) if name.endswith(".branch"))] = np.array(
            [], dtype=np.int64
        )
    with torch.no_grad():
        error = {
            how: float(
                (
                    logits_of(
                        prune(
                            model,
                            plan_of(model, kept),
                            [(images, None)],
                            compensate=how,
                        )(images)
                    )
                    - logits_of(model(images))
                ).norm()
            )
            for how in ("none", "ridge")
        }
    assert error["ridge"] < 0.96 * error["none"], error


@torch.no_grad()
def test_reconstruction_of_a_narrower_stream_is_least_squares(monkeypatch):
    """In float64: without one branch and a third of the stream, then hidden channels go.

    What is left is fitted.
    """
    monkeypatch.setattr(reconstruction, "best_penalty", lambda *_: 1e-13)
    torch.manual_seed(3)
    model = (
        of_timm(depth=2, embed_dim=12, num_heads=2, mlp_ratio=1.0, init_values=0.5).double().eval()
    )
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    adapter, layers, x = (
        adapter_for(model),
        all_layers(model),
        torch.randn(40, 3, 32, 32, dtype=torch.float64),
    )
    stream_D, keep = (
        torch.tensor([0, 1, 3, 4, 6, 8, 9, 11]),
        {"blocks.0.mlp.fc2": torch.arange(5), "blocks.1.attn.proj": torch.arange(12)},
    )
    light = copy.deepcopy(model)
    adapter.cut(light, layers["blocks.0.attn.branch"], torch.tensor([], dtype=torch.int64))
    adapter.cut(light, layers["embed"], stream_D)
    start, found = copy.deepcopy(light), {}

    def apply(reader, weight, bias):
        found[reader] = torch.cat([weight.T, bias[None]])
        if reader == "blocks.0.mlp.fc2":
            adapter.cut(light, layers["blocks.0.mlp"], keep[reader])
        for parameter, value in zip(
            light.get_submodule(reader).parameters(), (weight, bias), strict=True
        ):
            parameter.copy_(value)

    sequential.reconstruct_sequentially(
        adapter,
        model,
        light,
        keep,
        x[:4],
        [(x[:30], None), (x[30:], None)],
        apply,
        kept_stream_D=stream_D,
    )
    readers = sequential.readers_of(layers.values())
    weights = {
        reader: block.weights[reader]
        for block in residual_blocks.find_residual_blocks(model, readers, x[:4])
        for reader in block.readers
    }

    def fit(reader, inputs, dense, scale, behind, cut):
        """The reader by least squares, and the cut network's stream behind it."""
        target = dense + 0.5 * (behind[..., stream_D] - cut - scale * dense) / scale
        design = torch.cat([inputs[..., keep[reader]], torch.ones_like(inputs[..., :1])], -1)
        root_T1 = weights[reader].sqrt()[:, None]
        solution = torch.linalg.lstsq(
            (design * root_T1).flatten(0, 1), (target * root_T1).flatten(0, 1)
        ).solution
        torch.testing.assert_close(found[reader], solution, rtol=1e-6, atol=1e-6)
        return cut + scale * (design @ solution)

    dense, cut = (whole._pos_embed(whole.patch_embed(x)) for whole in (model, start))
    dense, block = model.blocks[0](dense), start.blocks[0]
    hidden = block.mlp.act(block.mlp.fc1(block.norm2(cut)))
    cut = fit("blocks.0.mlp.fc2", hidden, block.mlp.fc2(hidden), block.ls2.gamma, dense, cut)
    dense = dense + model.blocks[1].ls1(model.blocks[1].attn(model.blocks[1].norm1(dense)))
    block, seen = start.blocks[1], []
    block.attn.proj.register_forward_pre_hook(lambda _, y: seen.append(y[0]))
    output = block.attn(block.norm1(cut))
    fit("blocks.1.attn.proj", seen[0], output, block.ls1.gamma, dense, cut)


def test_a_branch_that_gives_a_constant_goes_without_loss(plan_of):
    """Its constant moves into the bias of the reader behind it."""
    model = make("timm")
    with torch.no_grad():
        model.blocks[1].attn.proj.weight.zero_()
    images = images_for(model, 12)
    light = prune(model, plan_of(model, {"blocks.1.attn.branch": []}), [(images, None)])
    none = prune(model, plan_of(model, {"blocks.1.attn.branch": []}), compensate="none")
    with torch.no_grad():
        gap = {
            name: (other(images) - model(images)).norm()
            for name, other in (("ridge", light), ("none", none))
        }
    assert gap["ridge"] < 0.7 * gap["none"]


def old_description(model):
    """A description from before heads had inner widths and branches could be dropped."""
    description = describe(model)
    head_dim = description.pop("head_dim")
    del description["inner"]
    width, count = {
        "timm_vit": ("embed_dim", "num_heads"),
        "torchvision_vit": ("hidden_dim", "num_heads"),
        "transformers_vit": ("hidden_size", "num_attention_heads"),
    }[description["family"]]
    description["arguments"][count] = description["arguments"][width] // head_dim
    return description


@pytest.mark.parametrize("name", ["timm", "timm_qk_norm", "torchvision", "transformers_deit"])
def test_experts_saved_before_load(name, plan_of, random_keep):
    model = make(name)
    attention = next(layer.name for layer in all_layers(model).values() if layer.kind == "heads")
    for light in (
        model,
        prune(
            model,
            plan_of(model, {**random_keep(model, 3), attention: [0, 2, 3]}),
            compensate="none",
        ),
    ):
        state = {
            key.replace("in_proj.", "in_proj_"): tensor
            for key, tensor in light.state_dict().items()
        }
        rebuilt = build(old_description(light)).eval()
        rebuilt.load_state_dict(state, strict=True)
        with torch.no_grad():
            assert torch.equal(
                logits_of(rebuilt(images_for(model))), logits_of(light(images_for(model)))
            )


def test_modes_reach_modules_that_are_new(plan_of):
    model = make("torchvision").train()
    model.encoder.layers[1].eval()
    light = prune(
        model,
        plan_of(
            model,
            {
                "encoder.layers.encoder_layer_0.self_attention.v": np.arange(0, 32, 2),
                "encoder.layers.encoder_layer_1.mlp.branch": [],
            },
        ),
        compensate="none",
    )
    assert all(module.training for module in light.encoder.layers[0].modules()) and not any(
        m.training for m in light.encoder.layers[1].modules()
    )


def test_the_scale_stays_that_of_the_whole_head(plan_of):
    model = make("timm")
    light = prune(
        model,
        plan_of(model, {"blocks.0.attn.qk": np.r_[0:2, 8:10, 16:18, 24:26]}),
        compensate="none",
    )
    x = torch.randn(2, 5, 32)
    with torch.no_grad():
        q, k, v = model.blocks[0].attn.qkv(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)
        y = F.softmax(q[..., :2] @ k[..., :2].mT / 8**0.5, -1) @ v
        torch.testing.assert_close(
            light.blocks[0].attn(x), model.blocks[0].attn.proj(y.transpose(1, 2).flatten(2))
        )


def test_plans_that_cannot_be_cut_are_refused(plan_of):
    model = make("timm")
    with pytest.raises(
        InvalidValueError,
        match='keeps 2 units of part 0 of layer "blocks.0.attn.v" and 1 of part 1; keep as many',
    ):
        prune(model, plan_of(model, {"blocks.0.attn.v": [0, 1, 8, 16, 24]}), compensate="none")
    with pytest.raises(InvalidValueError, match='keeps no unit of layer "embed"'):
        prune(model, plan_of(model, {"embed": []}), compensate="none")
    with pytest.raises(
        UnknownLayerError, match="'blocks.0.attn.qk' of the plan is not in the model"
    ):
        prune(
            make("timm_qk_norm"),
            plan_of(model, {"blocks.0.attn.qk": np.arange(0, 32, 2)}),
            compensate="none",
        )


def test_what_a_plan_says_of_a_dropped_branch_does_not_matter(plan_of):
    model = make("timm")
    gone = {"blocks.0.attn.branch": [], "blocks.2.mlp.branch": []}
    more = {
        **gone,
        "blocks.0.attn": [1],
        "blocks.0.attn.v": np.arange(0, 32, 4),
        "blocks.0.attn.qk": np.arange(0, 32, 2),
        "blocks.2.mlp": [3],
    }
    light, same = (
        prune(model, plan_of(model, kept), [(images_for(model), None)]) for kept in (gone, more)
    )
    assert all(
        torch.equal(tensor, same.state_dict()[name]) for name, tensor in light.state_dict().items()
    )


@pytest.mark.slow
def test_every_group_of_deit_tiny_in_one_plan(deit, photographs, plan_of):
    """Real weights: self-check and costs hold at full size, and reconstruction helps."""
    model = deit[0]
    each = lambda count, of, heads=3: np.concatenate(
        [part * of + np.arange(count) for part in range(heads)]
    )
    kept = {"embed": np.delete(np.arange(192), np.arange(0, 192, 24)), "blocks.7.mlp.branch": []}
    for i in range(12):
        kept |= {
            f"blocks.{i}.attn.v": each(56, 64),
            f"blocks.{i}.attn.qk": each(48, 64),
            f"blocks.{i}.mlp": np.arange(640),
        }
    kept["blocks.3.attn"] = [0, 2]
    images = torch.cat([x for x, _ in photographs])
    with torch.no_grad():
        dense = model(images)
        light = {
            how: prune(model, plan_of(model, kept), photographs, compensate=how)
            for how in ("none", "ridge")
        }
        error = {
            how: float((cut(images) - dense).norm() / dense.norm()) for how, cut in light.items()
        }
    sizes = {
        name: len(keep) // {"v": 3, "qk": 3}.get(name.rpartition(".")[2], 1)
        for name, keep in kept.items()
    }
    assert count_macs(light["ridge"]) == cost_of(adapter_for(model).costs(model), sizes, "macs")
    assert error["ridge"] < 0.8 * error["none"], error


def test_members_say_what_the_adapter_cuts(family):
    """Where no attention has to be freed and no branch goes, the members alone are the cut."""
    adapter = adapter_for(family)
    for layer in adapter.layers(family):
        if layer.kind not in ("mlp", "embed", "heads") or (adapter.rigid and layer.kind != "mlp"):
            continue
        by_members, by_adapter = copy.deepcopy(family), copy.deepcopy(family)
        keep_U = torch.arange(layer.units // 2)
        cut_group(by_members, layer, keep_U)
        adapter.cut(by_adapter, layer, keep_U)
        assert repr(by_members) == repr(by_adapter)
        images = images_for(family)
        assert torch.equal(logits_of(by_members(images)), logits_of(by_adapter(images)))
