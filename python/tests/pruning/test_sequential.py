"""The fold in sequence against least squares by hand, in every family, with its limits, and the regression under it."""

import copy
import gc

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agflow.errors import InvalidValueError, NonFiniteError
from agflow.models import adapter_for, channels_of, logits_of
from agflow.pruning import sequential
from agflow.pruning.pruner import prune
from agflow.pruning.regression import PENALTIES, Regression, best_penalty
from agflow.pruning.sequential import readers_of, reconstruct_sequentially, row_of_blocks


def sums_of(y, t):
    regression = Regression.empty(y.shape[1], t.shape[1])
    for rows in torch.arange(len(y)).split(7):
        regression.add(y[rows], t[rows], torch.ones(len(rows), dtype=y.dtype))
    return regression


def rows_for(seed, rows=60, inputs=5, outputs=3):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(rows, inputs, dtype=torch.float64, generator=generator) + 2
    return y, y @ torch.randn(
        inputs, outputs, dtype=torch.float64, generator=generator
    ) + torch.randn(rows, outputs, dtype=torch.float64, generator=generator)


@given(st.integers(0, 10_000), st.sampled_from(PENALTIES), st.booleans())
@settings(max_examples=40, deadline=None)
def test_ridge_equals_least_squares_on_rows_that_carry_the_penalty(seed, penalty, intercept):
    """|Wy + b - t|² / rows + λ|W|² is plain least squares with sqrt(λ · rows) · I as further rows, and targets of 0 there."""
    y, t = rows_for(seed)
    inputs, targets = (y - y.mean(0), t - t.mean(0)) if intercept else (y, t)
    added = penalty * inputs.square().mean(0).mean() * len(y)
    weight = torch.linalg.lstsq(
        torch.cat([inputs, added.sqrt() * torch.eye(5, dtype=torch.float64)]),
        torch.cat([targets, torch.zeros(5, 3, dtype=torch.float64)]),
    ).solution.T
    found, bias = sums_of(y, t).solve(penalty, intercept)
    torch.testing.assert_close(found, weight)
    torch.testing.assert_close(
        bias, t.mean(0) - weight @ y.mean(0) if intercept else torch.zeros(3, dtype=torch.float64)
    )


def test_errors_are_those_over_the_rows_and_the_least_wins():
    y, t = rows_for(1)
    seen, unseen = sums_of(y[:20], t[:20]), sums_of(y[20:], t[20:])
    errors = {}
    for penalty in PENALTIES:
        weight, bias = seen.solve(penalty)
        errors[penalty] = float((y[20:] @ weight.T + bias - t[20:]).square().sum(1).mean())
        assert unseen.error(weight, bias) == pytest.approx(errors[penalty], rel=1e-9)
    assert best_penalty(seen, unseen) == min(errors, key=errors.get)
    both, whole = seen + unseen, sums_of(y, t)
    assert both.rows == 60
    torch.testing.assert_close(both.solve(0.1), whole.solve(0.1))


def test_a_row_of_weight_three_is_that_row_three_times():
    y, t = rows_for(2)
    times = torch.arange(60) % 4
    weighed = Regression.empty(5, 3)
    weighed.add(y, t, times.double())
    repeated = sums_of(y.repeat_interleave(times, 0), t.repeat_interleave(times, 0))
    assert weighed.rows == repeated.rows == 90
    torch.testing.assert_close(weighed.solve(0.1), repeated.solve(0.1))
    assert weighed.error(*repeated.solve(0.1)) == pytest.approx(
        repeated.error(*repeated.solve(0.1))
    )


def test_inputs_that_never_vary_get_no_weight():
    weight, bias = sums_of(
        torch.ones(9, 2, dtype=torch.float64), torch.arange(9.0, dtype=torch.float64)[:, None]
    ).solve(0.1)
    assert torch.equal(
        weight, torch.zeros(1, 2, dtype=torch.float64)
    ) and bias.item() == pytest.approx(4)


@pytest.fixture
def least_squares(monkeypatch):
    """No penalty to speak of."""
    monkeypatch.setattr(sequential, "best_penalty", lambda *_: 1e-13)


def folded(model, kept, *batches):
    """Weight and bias of every repaired reader, by layer name, in the order of the repair, and the cut model."""
    adapter, light, found = adapter_for(model), copy.deepcopy(model), {}
    by_reader = {
        layer.reader: (layer, torch.as_tensor(kept[layer.name]))
        for layer in adapter.layers(model)
        if layer.name in kept
    }

    def apply(name, weight, bias):
        layer, keep_U = by_reader[name]
        adapter.cut(light, layer, keep_U)
        reader = light.get_submodule(name)
        reader.weight.copy_(weight)
        if bias is not None:
            reader.bias.copy_(bias)
        found[layer.name] = weight, bias

    cuts = {
        reader: channels_of(keep_U, layer.unit_width)
        for reader, (layer, keep_U) in by_reader.items()
    }
    reconstruct_sequentially(
        adapter,
        model,
        light,
        cuts,
        batches[0][:4],
        [(batch, None) for batch in batches],
        apply,
    )
    return found, light


@pytest.mark.parametrize("options", [{}, {"init_values": 0.3}], ids=["plain", "layer_scale"])
@torch.no_grad()
def test_readers_solve_the_recipe_by_torch_lstsq(make_vit, images, least_squares, options):
    """Two blocks by hand in float64: heads of block 1, hidden channels of both."""
    model = make_vit(embed_dim=16, depth=2, num_heads=4, mlp_ratio=1.0, **options).double()
    for block in model.blocks:
        if options:
            block.ls1.gamma.uniform_(0.2, 2)
            block.ls2.gamma.uniform_(0.2, 2)
    x = images[0].double()
    kept = {
        "blocks.0.mlp": [1, 2, 5, 6, 9, 14],
        "blocks.1.attn": [0, 2],
        "blocks.1.mlp": [0, 3, 4, 8, 15],
    }
    found, light = folded(model, kept, x[:5], x[5:])
    assert list(found) == list(kept)
    blocks = row_of_blocks(model, readers_of(adapter_for(model).layers(model)), x[:4])
    weights = {
        reader.rpartition(".")[0]: weight_T
        for block in blocks
        for reader, weight_T in block.weights.items()
    }

    scale = lambda module: module.gamma if options else 1.0
    inputs = {}
    record = lambda name: lambda _, args: inputs.__setitem__(name, args[0])
    for i, block in enumerate(model.blocks):
        block.attn.proj.register_forward_pre_hook(record(f"blocks.{i}.attn"))
        block.mlp.fc2.register_forward_pre_hook(record(f"blocks.{i}.mlp"))

    def solve(layer, linear, gamma, dense_behind, stream, attended):
        """The cut network's stream behind the layer, and its reader by least squares."""
        y, o = inputs[layer], attended
        target = o + 0.5 * (dense_behind - stream - gamma * o) / gamma
        channels = (
            torch.tensor(kept[layer])
            if "mlp" in layer
            else (torch.tensor(kept[layer])[:, None] * 4 + torch.arange(4)).flatten()
        )
        design = torch.cat([y[..., channels], torch.ones_like(y[..., :1])], -1)
        root_T1 = weights[layer].sqrt()[:, None]
        solution = torch.linalg.lstsq(
            (design * root_T1).flatten(0, 1), (target * root_T1).flatten(0, 1)
        ).solution
        torch.testing.assert_close(
            torch.cat([found[layer][0].T, found[layer][1][None]]), solution, rtol=1e-6, atol=1e-6
        )
        return stream + gamma * (design @ solution)

    dense = cut = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    for i, block in enumerate(model.blocks):
        for name, norm, module, reader, ls in (
            (f"blocks.{i}.attn", block.norm1, block.attn, block.attn.proj, block.ls1),
            (f"blocks.{i}.mlp", block.norm2, block.mlp, block.mlp.fc2, block.ls2),
        ):
            dense = dense + scale(ls) * module(norm(dense))
            output = module(norm(cut))
            cut = (
                solve(name, reader, scale(ls), dense, cut, output)
                if name in kept
                else cut + scale(ls) * output
            )
    torch.testing.assert_close(light(x), model.forward_head(model.norm(cut)))


def test_tokens_weigh_as_the_logits_depend_on_them(make_vit, images):
    """Behind the last block only the class token is read, or with average pooling every other token, all alike."""
    weights = {}
    for pool in ("token", "avg"):
        model = make_vit(global_pool=pool)
        for block in row_of_blocks(model, readers_of(adapter_for(model).layers(model)), images[0]):
            assert tuple(block.weights) == block.readers
            weights[pool] = block.weights
            for weight_T in block.weights.values():
                assert (
                    weight_T.shape == (17,)
                    and weight_T.min() >= 0.5
                    and weight_T.mean().item() == pytest.approx(1, rel=1e-5)
                )
    torch.testing.assert_close(
        weights["token"]["blocks.2.mlp.fc2"], torch.tensor([9.0] + [0.5] * 16)
    )
    torch.testing.assert_close(
        weights["avg"]["blocks.2.mlp.fc2"], torch.tensor([0.5] + [0.5 + 17 / 32] * 16)
    )
    assert not images[0].requires_grad


def test_a_repeated_unit_is_cut_without_loss(make_vit, images, monkeypatch, plan_of):
    monkeypatch.setattr(sequential, "best_penalty", lambda *_: 1e-6)
    model = make_vit()
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(model.blocks[0].mlp.fc1, name)[7] = getattr(model.blocks[0].mlp.fc1, name)[3]
    light = prune(
        model,
        plan_of(model, {"blocks.0.mlp": [u for u in range(96) if u != 7]}),
        [images],
    )
    torch.testing.assert_close(light(images[0]), model(images[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [("mlp",), ("heads",), ("mlp", "heads")], ids="+".join)
def test_logits_come_closer_in_every_kind_of_vit(vit, images, plan_of, random_keep, groups):
    batches = [(images[0][:5], None), (images[0][5:], None)]
    plan = plan_of(vit, random_keep(vit, 3, groups))
    assert_closer_than_without(vit, plan, batches)


def of_transformers():
    transformers = pytest.importorskip("transformers")
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(
            image_size=32,
            patch_size=8,
            num_hidden_layers=3,
            num_attention_heads=4,
            hidden_size=48,
            intermediate_size=96,
            num_labels=10,
        )
    )


@pytest.mark.parametrize(
    "make",
    [
        of_transformers,
        lambda: torchvision.models.VisionTransformer(32, 8, 3, 4, 48, 96, num_classes=10),
    ],
    ids=["transformers", "torchvision"],
)
def test_logits_come_closer_in_other_families(make, images, plan_of, random_keep):
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    assert_closer_than_without(model, plan_of(model, random_keep(model, 3)), [images])


@torch.no_grad()
def assert_closer_than_without(model, plan, batches):
    x = torch.cat([images for images, _ in batches])
    error = {
        how: (
            logits_of(prune(model, plan, batches, compensate=how)(x)) - logits_of(model(x))
        ).norm()
        for how in ("ridge", "none")
    }
    assert error["ridge"] < 0.7 * error["none"], error


def test_equal_images_give_equal_bits_and_batches_change_only_rounding(make_vit, images):
    model, kept = (
        make_vit(),
        {"blocks.0.mlp": range(40), "blocks.1.attn": [0, 3], "blocks.2.mlp": range(20, 60)},
    )
    first, second, split = (
        folded(model, kept, images[0])[0],
        folded(model, kept, images[0])[0],
        folded(model, kept, *images[0].split(3))[0],
    )
    for name, (weight, bias) in first.items():
        assert torch.equal(weight, second[name][0]) and torch.equal(bias, second[name][1])
        torch.testing.assert_close(weight, split[name][0], rtol=1e-3, atol=1e-4)


def test_at_most_three_streams_are_held(make_vit, images, monkeypatch):
    """Live [B, T, D] values while penalties are chosen, batches of one image: three streams and one image's work."""
    model = make_vit()
    held = []

    def count(*sums):
        gc.collect()
        alive = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for tensor in gc.get_objects()
            if type(tensor) is torch.Tensor and tensor.ndim == 3 and tensor.shape[1:] == (17, 48)
        }
        held.append(sum(alive.values()))
        return best_penalty(*sums)

    monkeypatch.setattr(sequential, "best_penalty", count)
    kept = {
        f"blocks.{i}.{part}": units
        for i in range(3)
        for part, units in (("attn", [1, 2]), ("mlp", range(30)))
    }
    folded(model, kept, *torch.cat([images[0]] * 4).split(1))
    stream = 32 * 17 * 48 * 4
    assert len(held) == 6 and max(held) <= 3.5 * stream


@torch.no_grad()
def test_a_reader_that_loses_nothing_takes_back_half_of_the_error_before_it(
    make_vit, images, monkeypatch
):
    """As far as its inputs can tell; here they have nearly as many channels (96) as there are tokens (136)."""
    monkeypatch.setattr(sequential, "best_penalty", lambda *_: 1e-6)
    model = make_vit()
    cut, whole = {"blocks.0.mlp": range(30)}, {"blocks.1.mlp": range(96)}
    found, light = folded(model, {**cut, **whole}, images[0])
    _, without = folded(model, cut, images[0])
    assert list(found) == ["blocks.0.mlp", "blocks.1.mlp"] and found["blocks.1.mlp"][0].shape == (
        48,
        96,
    )
    behind = lambda network: network.blocks[:2](
        network.norm_pre(network._pos_embed(network.patch_embed(images[0])))
    )
    left = (behind(light) - behind(model)).norm() / (behind(without) - behind(model)).norm()
    assert 0.4 < left < 0.8, left


def test_prune_fits_every_reader_from_the_first_cut_on(make_vit, images, plan_of):
    model = make_vit()
    light = prune(model, plan_of(model, {"blocks.1.mlp": range(40)}), [images])
    kept = [
        name
        for name, weight in model.named_parameters()
        if name in dict(light.named_parameters()) and torch.equal(weight, light.get_parameter(name))
    ]
    changed = sorted(set(dict(model.named_parameters())) - set(kept))
    assert changed == sorted(
        [
            *(f"blocks.{i}.mlp.fc2.{p}" for i in (1, 2) for p in ("weight", "bias")),
            "blocks.1.mlp.fc1.weight",
            "blocks.1.mlp.fc1.bias",
            "blocks.2.attn.proj.weight",
            "blocks.2.attn.proj.bias",
        ]
    )


@pytest.mark.parametrize(
    "kept",
    [
        {"blocks.1.mlp": range(30)},
        {"blocks.1.attn": [1, 2]},
        {"blocks.1.attn": [0, 1, 2, 3], "blocks.1.mlp": range(30)},
    ],
    ids=["mlp", "attn", "both"],
)
def test_a_block_is_crossed_in_one_pass(make_vit, images, monkeypatch, kept):
    """Each part of the block runs once per batch in either network, and once on the sample; nothing stays replaced."""
    model, calls = make_vit(), []
    attention = type(model.blocks[1].attn)
    forward = attention.forward
    monkeypatch.setattr(
        attention,
        "forward",
        lambda self, *args, **kwargs: calls.append(self) or forward(self, *args, **kwargs),
    )
    _, light = folded(model, kept, *images[0].split(4))
    assert calls.count(model.blocks[1].attn) == 1 + 2 and calls.count(light.blocks[1].attn) == 2
    assert not any("forward" in vars(module) for module in light.modules())


def test_one_image_suffices_and_nothing_to_cut_is_nothing_to_do(make_vit, images):
    model = make_vit()
    found, _ = folded(model, {"blocks.1.mlp": range(10)}, images[0][:1])
    assert found["blocks.1.mlp"][0].isfinite().all()
    assert folded(model, {}, images[0])[0] == {}


def test_non_finite_activations_are_refused_by_layer_and_leave_no_hooks(make_vit, images):
    model = make_vit().train()
    broken = images[0].clone()
    broken[2] = float("nan")
    with pytest.raises(NonFiniteError, match="blocks.1.mlp"):
        folded(model, {"blocks.1.mlp": range(10)}, images[0], broken)
    with pytest.raises(NonFiniteError, match="blocks.0"):
        folded(model, {"blocks.1.mlp": range(10)}, broken)
    assert model.training and not any(
        module._forward_pre_hooks or module._forward_hooks for module in model.modules()
    )


class Branch(nn.Module):
    """x + reader(x), or another combination of the two."""

    def __init__(self, combine=lambda x, o: x + o):
        super().__init__()
        self.reader, self.combine = nn.Linear(4, 4), combine

    def forward(self, x):
        return self.combine(x, self.reader(x))


class Row(nn.Module):
    def __init__(self, blocks, between=lambda x: x):
        super().__init__()
        self.blocks, self.between = blocks, between

    def forward(self, x):
        for block in self.blocks.children():
            x = self.between(block(x))
        return x


@torch.no_grad()
def test_blocks_are_recognised_and_other_models_refused():
    x = torch.randn(3, 5, 4)
    row = lambda *combine, **options: Row(nn.ModuleList(map(Branch, combine)), **options)
    add, scaled = lambda x, o: x + o, lambda x, o: x + torch.tensor([0.5, 2, 0, -1]) * o
    both = ["blocks.0.reader", "blocks.1.reader"]
    found = row_of_blocks(row(add, scaled), both, x)
    assert [block.name for block in found] == ["blocks.0", "blocks.1"]
    torch.testing.assert_close(found[0].scales["blocks.0.reader"], torch.ones(4))
    torch.testing.assert_close(
        found[1].scales["blocks.1.reader"], torch.tensor([0.5, 2, 0, -1]), atol=1e-6, rtol=1e-5
    )
    for model, readers, says in (
        (
            row(add, lambda x, o: 2 * x + o),
            both,
            "blocks.1 does not give its input plus its readers' outputs",
        ),
        (
            row(add, lambda x, o: nn.functional.layer_norm(x + o, (4,))),
            both,
            "blocks.1 does not give its input",
        ),
        (row(add, add, between=torch.relu), both, "each on the output of the one before"),
        (row(add, add), both[::-1], "in this order"),
        (
            Row(nn.ModuleDict({"a": Branch(), "b": Branch()})),
            ["blocks.a.reader", "blocks.b.reader"],
            "holds layer blocks.a.reader",
        ),
    ):
        with pytest.raises(InvalidValueError, match=says) as caught:
            row_of_blocks(model, readers, x)
        assert "use compensate='ridge_at_once'" in str(caught.value) and "\n" not in str(
            caught.value
        )
