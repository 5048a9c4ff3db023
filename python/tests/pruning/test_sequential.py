"""Sequential reconstruction against least squares by hand, in every family, and its limits."""

import copy
import gc
from functools import partial

import pytest
import small_vits
import timm
import torch
import torchvision

import agflow
from agflow.errors import NonFiniteError
from agflow.models import adapter_for, channels_of, logits_of
from agflow.pruning import reconstruction
from agflow.pruning.pruner import prune
from agflow.pruning.regression import best_penalty
from agflow.pruning.residual_blocks import find_residual_blocks
from agflow.pruning.sequential import readers_of, reconstruct_sequentially


@pytest.fixture
def least_squares(monkeypatch):
    """No penalty to speak of."""
    monkeypatch.setattr(reconstruction, "best_penalty", lambda *_: 1e-13)


def reconstructed(model, kept, *batches):
    """Weight and bias of every fitted reader, by layer name, in order, and the pruned model."""
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
def test_readers_equal_torch_lstsq(make_vit, images, least_squares, options):
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
    found, light = reconstructed(model, kept, x[:5], x[5:])
    assert list(found) == list(kept)
    blocks = find_residual_blocks(model, readers_of(adapter_for(model).layers(model)), x[:4])
    of_readers = [item for block in blocks for item in block.weights.items()]
    weights = {reader.rpartition(".")[0]: weight_T for reader, weight_T in of_readers}

    scale = lambda module: module.gamma if options else 1.0
    inputs = {}
    record = lambda name: lambda _, args: inputs.__setitem__(name, args[0])
    for i, block in enumerate(model.blocks):
        block.attn.proj.register_forward_pre_hook(record(f"blocks.{i}.attn"))
        block.mlp.fc2.register_forward_pre_hook(record(f"blocks.{i}.mlp"))

    def solve(layer, gamma, dense_behind, stream, output):
        """The pruned network's stream behind the layer, and its reader by least squares."""
        target = output + 0.5 * (dense_behind - stream - gamma * output) / gamma
        channels = channels_of(torch.tensor(kept[layer]), 1 if "mlp" in layer else 4)
        design = torch.cat([inputs[layer][..., channels], torch.ones_like(target[..., :1])], -1)
        root_T1 = weights[layer].sqrt()[:, None]
        solution = torch.linalg.lstsq(
            (design * root_T1).flatten(0, 1), (target * root_T1).flatten(0, 1)
        ).solution
        torch.testing.assert_close(
            torch.cat([found[layer][0].T, found[layer][1][None]]), solution, rtol=1e-6, atol=1e-6
        )
        return stream + gamma * (design @ solution)

    dense = pruned = model.norm_pre(model._pos_embed(model.patch_embed(x)))
    for i, block in enumerate(model.blocks):
        for name, norm, module, ls in (
            (f"blocks.{i}.attn", block.norm1, block.attn, block.ls1),
            (f"blocks.{i}.mlp", block.norm2, block.mlp, block.ls2),
        ):
            dense = dense + scale(ls) * module(norm(dense))
            output = module(norm(pruned))
            if name in kept:
                pruned = solve(name, scale(ls), dense, pruned, output)
            else:
                pruned = pruned + scale(ls) * output
    torch.testing.assert_close(light(x), model.forward_head(model.norm(pruned)))


def test_a_repeated_unit_is_removed_without_loss(make_vit, images, monkeypatch, plan_of):
    monkeypatch.setattr(reconstruction, "best_penalty", lambda *_: 1e-6)
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
        reconstructed(model, kept, images[0])[0],
        reconstructed(model, kept, images[0])[0],
        reconstructed(model, kept, *images[0].split(3))[0],
    )
    for name, (weight, bias) in first.items():
        assert torch.equal(weight, second[name][0]) and torch.equal(bias, second[name][1])
        torch.testing.assert_close(weight, split[name][0], rtol=1e-3, atol=1e-4)


def test_at_most_three_streams_are_held(make_vit, images, monkeypatch):
    """Live [B, T, D] values while penalties are chosen, in batches of one image."""
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

    monkeypatch.setattr(reconstruction, "best_penalty", count)
    kept = {
        f"blocks.{i}.{part}": units
        for i in range(3)
        for part, units in (("attn", [1, 2]), ("mlp", range(30)))
    }
    reconstructed(model, kept, *torch.cat([images[0]] * 4).split(1))
    stream = 32 * 17 * 48 * 4
    assert len(held) == 6 and max(held) <= 3.5 * stream


@torch.no_grad()
def test_a_reader_that_loses_nothing_takes_back_half_of_the_error_before_it(
    make_vit, images, monkeypatch
):
    """As far as its inputs can predict; they have nearly as many channels (96) as tokens (136)."""
    monkeypatch.setattr(reconstruction, "best_penalty", lambda *_: 1e-6)
    model = make_vit()
    cut, whole = {"blocks.0.mlp": range(30)}, {"blocks.1.mlp": range(96)}
    found, light = reconstructed(model, {**cut, **whole}, images[0])
    _, without = reconstructed(model, cut, images[0])
    assert list(found) == ["blocks.0.mlp", "blocks.1.mlp"] and found["blocks.1.mlp"][0].shape == (
        48,
        96,
    )
    behind = lambda network: network.blocks[:2](
        network.norm_pre(network._pos_embed(network.patch_embed(images[0])))
    )
    left = (behind(light) - behind(model)).norm() / (behind(without) - behind(model)).norm()
    assert 0.4 < left < 0.8, left


def test_prune_fits_every_reader_from_the_first_pruned_layer_on(make_vit, images, plan_of):
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
def test_a_block_runs_once_per_batch(make_vit, images, monkeypatch, kept):
    """Each part of a block runs once per batch in either network, and twice on the sample."""
    model, calls = make_vit(), []
    attention = type(model.blocks[1].attn)
    forward = attention.forward
    monkeypatch.setattr(
        attention,
        "forward",
        lambda self, *args, **kwargs: calls.append(self) or forward(self, *args, **kwargs),
    )
    _, light = reconstructed(model, kept, *images[0].split(4))
    assert calls.count(model.blocks[1].attn) == 2 + 2 and calls.count(light.blocks[1].attn) == 2
    assert not any("forward" in vars(module) for module in light.modules())


def test_one_image_suffices_and_nothing_to_prune_changes_nothing(make_vit, images):
    model = make_vit()
    found, _ = reconstructed(model, {"blocks.1.mlp": range(10)}, images[0][:1])
    assert found["blocks.1.mlp"][0].isfinite().all()
    assert reconstructed(model, {}, images[0])[0] == {}


def test_non_finite_activations_are_refused_by_layer_and_leave_no_hooks(make_vit, images):
    model = make_vit().train()
    broken = images[0].clone()
    broken[2] = float("nan")
    with pytest.raises(NonFiniteError, match="blocks.1.mlp"):
        reconstructed(model, {"blocks.1.mlp": range(10)}, images[0], broken)
    with pytest.raises(NonFiniteError, match="blocks.0"):
        reconstructed(model, {"blocks.1.mlp": range(10)}, broken)
    assert model.training and not any(
        module._forward_pre_hooks or module._forward_hooks for module in model.modules()
    )


@pytest.mark.parametrize(
    "gammas", [(1e-6, 1e-6, 1e-6), (1.0, 1e-6, 1.0), (1e-4, 1e-5, 1e-6), (0.0, 1.0, 1e-6)]
)
def test_a_small_layer_scale_is_known_and_not_solved_for(make_vit, gammas):
    """What such a branch adds is lost in the rounding of the stream; the repair still helps."""
    model = make_vit(init_values=1.0)
    for block, gamma in zip(model.blocks, gammas, strict=True):
        block.ls1.gamma.data.fill_(gamma)
        block.ls2.gamma.data.fill_(gamma)
    batches = [(torch.randn(32, 3, 32, 32), torch.arange(32) % 10) for _ in range(4)]
    plan = agflow.plan(agflow.calibrate(model, batches), macs=0.6)
    images, errors = torch.randn(64, 3, 32, 32), {}
    for compensate in ("ridge", "ridge_at_once", "none"):
        light = agflow.prune(model, plan, batches, compensate=compensate)
        errors[compensate] = float((light(images) - model(images)).norm())
    assert errors["ridge"] < 1.1 * errors["ridge_at_once"] and errors["ridge"] < errors["none"]


@pytest.mark.parametrize("blocks", [(0, 1, 2), (1,)], ids=["all", "one"])
@pytest.mark.parametrize("build", ["of_timm", "of_torchvision", "of_transformers"])
def test_branches_that_add_next_to_nothing_are_repaired_in_every_library(build, blocks):
    model = small_vits.made(partial(getattr(small_vits, build), depth=3))
    readers = readers_of(adapter_for(model).layers(model))
    with torch.no_grad():
        for block in blocks:
            for reader in readers[2 * block : 2 * block + 2]:
                model.get_submodule(reader).weight.mul_(1e-6)
                model.get_submodule(reader).bias.mul_(1e-6)
    batches = [(torch.randn(8, 3, 32, 32), torch.arange(8)) for _ in range(3)]
    plan = agflow.plan(agflow.calibrate(model, batches), macs=0.6)
    light = agflow.prune(model, plan, batches)
    assert logits_of(light(batches[0][0])).isfinite().all()


def test_a_deit3_at_its_beginning_is_repaired():
    model = timm.create_model("deit3_small_patch16_224", img_size=32, depth=2).eval()
    assert float(model.blocks[0].ls1.gamma.detach().max()) < 1e-4
    batches = [(torch.randn(8, 3, 32, 32), torch.arange(8)) for _ in range(2)]
    plan = agflow.plan(agflow.calibrate(model, batches), macs=0.6)
    assert agflow.count_macs(agflow.prune(model, plan, batches)) == plan.macs


def test_a_branch_that_adds_next_to_nothing_takes_back_no_error(make_vit):
    model = make_vit(init_values=1.0)
    model.blocks[1].ls1.gamma.data.fill_(1e-6)
    adapter = adapter_for(model)
    blocks = find_residual_blocks(
        model,
        readers_of(adapter.layers(model)),
        torch.randn(4, 3, 32, 32),
        adapter.output_scales(model),
    )
    corrects = {reader: does for block in blocks for reader, does in block.corrects.items()}
    assert [reader for reader, does in corrects.items() if not does] == ["blocks.1.attn.proj"]
    assert torch.equal(blocks[1].scales["blocks.1.attn.proj"], model.blocks[1].ls1.gamma)
