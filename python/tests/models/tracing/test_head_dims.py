"""Channels inside of heads, pairs of a query and a key and values, in any spelling."""

import copy
import math

import pytest
import small_heads
import torch
from counted_networks import errors_of_a_cut, macs_of
from small_heads import network
from small_vits import images_for, made, of_timm, of_transformers
from timm.layers import set_fused_attn
from timm.models.swin_transformer import SwinTransformer
from torch import nn

import agflow
from agflow.models import adapter_for, count_macs
from agflow.models.account import examined
from agflow.models.channel_group import Attribute, Tap
from agflow.models.expert import load_expert, save_expert
from agflow.models.families.traced import TracedModel
from agflow.models.noting import note_size
from agflow.models.slicing import cut_groups
from agflow.models.tracing.network import traced_network
from agflow.models.tracing.normed import TAKES_MEANS
from agflow.pruning import Allocation
from agflow.pruning.masks import masked

SIZE = (3, 8, 8)
APART = {"attention.qk": (12, 2), "attention.v": (8, 2)}
TOGETHER = {"attention.head_dim": (24, 4)}
FOUND = {
    "Heads": TOGETHER,
    "Scaled": TOGETHER,
    "Measured": TOGETHER,
    "Counted": TOGETHER,
    "Chunked": TOGETHER,
    "HeadsFirst": TOGETHER,
    "Separate": APART,
    "Grouped": APART,
    "Repeated": APART,
    "Summed": {"attention.qk": (12, 1)},  # of one head: its values are a group as those of an MLP
    "Normed": APART,
    "Biased": TOGETHER,
}
"""By attention, its groups inside of heads: units and parts."""


def network_of(name):
    torch.manual_seed(0)
    model = network(getattr(small_heads, name)).eval()
    note_size(model, SIZE)
    return model, traced_network(model, SIZE)


def inside(network):
    return {group.name: group for group in network.groups if group.kind == "head_dim"}


def some_units(group, generator, share=0.6):
    """Random units, equally many of each part."""
    width = group.units // group.parts
    count = max(1, int(share * width))
    drawn = (torch.randperm(width, generator=generator)[:count] for _ in range(group.parts))
    return torch.cat([part * width + units for part, units in enumerate(drawn)]).sort().values


def cuts_of(groups, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [(of, some_units(of, generator)) for of in groups if not of.may_vanish]


@pytest.mark.parametrize("name", FOUND)
def test_pairs_and_values_are_groups_of_parts(name):
    _, network = network_of(name)
    assert {name: (of.units, of.parts) for name, of in inside(network).items()} == FOUND[name]
    assert name == "Summed" or any(group.kind == "heads" for group in network.groups)
    for group in inside(network).values():
        assert group.rounds and group.unit_width == 1 and group.unit_macs > 0


@pytest.mark.parametrize("name", FOUND)
def test_a_cut_is_the_masked_model_of_the_dense_width(name):
    """Heads, pairs and values at once, in float64: the scale of products stays that of 6."""
    model, network = network_of(name)
    model, images = model.double(), torch.randn(3, *SIZE).double()
    for groups in (inside(network).values(), network.groups):
        cuts, cut = cuts_of(groups), copy.deepcopy(model)
        with masked(adapter_for(model), model, cuts), torch.no_grad():
            expected = model(images)
        cut_groups(cut, cuts)
        with torch.no_grad():
            torch.testing.assert_close(cut(images), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FOUND)
def test_costs_are_those_of_the_cut_model(name):
    model, network = network_of(name)
    cuts = cuts_of(network.groups)
    assert network.costs.macs() == macs_of(model, SIZE)
    cut_groups(model, cuts)
    kept = {group.name: len(keep) // group.parts for group, keep in cuts}
    assert network.costs.macs(kept) == macs_of(model, SIZE)
    assert network.costs.params(kept) == sum(p.numel() for p in model.parameters())


SCALED = {"Heads", "Measured", "Counted", "Chunked", "HeadsFirst", "Separate", "Grouped"}
SCALED |= {"Repeated", "Normed", "Biased"}


@pytest.mark.parametrize("name", FOUND)
def test_queries_are_scaled_where_code_takes_the_width_that_it_finds(name):
    model, network = network_of(name)
    group = next(iter(inside(network).values()))
    assert bool(group.scaled) == (name in SCALED)
    if name == "Separate":
        assert {member.name for member in group.scaled} == {
            "attention.q.weight",
            "attention.q.bias",
        }
        before = model.attention.q.weight[:3].detach()
        keep = torch.tensor([0, 1, 2, 6, 7, 8])
        cut_groups(model, [(group, keep)])
        torch.testing.assert_close(model.attention.q.weight[:3], before / math.sqrt(2))
    if name == "Normed":
        names = {member.name for member in group.scaled}
        assert names == {"attention.norm_q.weight", "attention.norm_q.bias"}
    if name == "Biased":
        assert "attention.bias_q" in {member.name for member in group.scaled}


def test_numbers_that_the_code_reshapes_by_follow():
    _, network = network_of("Counted")
    (group,) = inside(network).values()
    assert group.attributes == (Attribute("attention", "width"),)
    assert group.attributes[0].after(6, group.units, group.units // 2) == 3
    assert not next(iter(inside(network_of("Heads")[1]).values())).attributes


BARRIERS = {
    "Rotated": "read by aten.cat",
    "Cosine": "read by aten.linalg_vector_norm",
    "HeadNorm": TAKES_MEANS,
    "Placed": "held by attention.bias_q for all heads",
    "Relative": "read by attention.table beside",
    "Fixed": "without them: the code of attention reshapes",
}


@pytest.mark.parametrize("name", BARRIERS)
def test_what_is_not_understood_is_kept_and_named(name):
    _, network = network_of(name)
    assert not {of for of in inside(network) if not of.endswith(".v")}
    assert any(BARRIERS[name] in kept.reason for kept in network.kept)


def test_queries_and_what_reads_values_are_measured():
    def taps(name):
        return {
            key.rpartition(".")[2]: of.seen_at for key, of in inside(network_of(name)[1]).items()
        }

    assert taps("Separate") == {
        "qk": (Tap("attention.q", "output", 0, 12),),
        "v": (Tap("attention.proj", "input", 0, 8),),
    }
    assert taps("Grouped")["qk"] == (Tap("attention.k", "output", 0, 12),)
    assert taps("Grouped")["v"] == (Tap("attention.v", "output", 0, 8),)
    values = Tap("attention.proj", "input", 0, 12)
    assert taps("Heads")["head_dim"] == (Tap("attention.qkv", "output", 0, 12), values)
    first = (Tap("attention.qkv", "output", first, 6) for first in (0, 18))
    assert taps("HeadsFirst")["head_dim"] == (*first, values)


@pytest.mark.parametrize("name", ["Heads", "HeadsFirst", "Grouped"])
def test_statistics_of_taps_side_by_side(name):
    """Each unit has the sum |y g| of its own channel, wherever that is seen."""
    model, network = network_of(name)
    images, labels = torch.randn(6, *SIZE), torch.arange(6) % 5
    statistics = agflow.calibrate(model, [(images, labels)], groups="head_dim")
    seen = {}
    for group in inside(network).values():
        for tap in group.seen_at:
            module = model.get_submodule(tap.module)
            if tap.side == "output":
                hook = lambda _, inputs, output, tap=tap: seen.__setitem__(tap, output)
                module.register_forward_hook(hook)
            else:
                module.register_forward_pre_hook(
                    lambda _, inputs, tap=tap: seen.__setitem__(tap, inputs[0])
                )
    loss = nn.functional.cross_entropy(model(images), labels, reduction="sum")
    gradients = dict(zip(seen, torch.autograd.grad(loss, list(seen.values())), strict=True))
    table = statistics.to_pandas()
    for group in inside(network).values():
        flow = [(seen[tap] * gradients[tap]).abs()[..., tap.channels] for tap in group.seen_at]
        expected = torch.cat([part.flatten(0, -2).sum(0) for part in flow])
        found = torch.tensor(table[table.layer == group.name].sum_abs_yg.to_numpy())
        torch.testing.assert_close(found.float(), expected.detach(), rtol=1e-4, atol=1e-7)


def plain(kind):
    """A plain ViT of a declared family, in float64."""
    make = of_timm if kind == "timm" else of_transformers
    model = made(make).double()
    return model, {group.name: group for group in examined(model).layers(model)}


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_the_cut_is_that_of_the_declared_family(kind):
    """One number or reshape of the code serves all three: the trace has one group of both."""
    model, declared = plain(kind)
    size = adapter_for(model).input_size(model)
    traced = inside(traced_network(model.float(), size))
    model.double()
    generator, images = torch.Generator().manual_seed(1), images_for(model).double()
    cuts, own = [], copy.deepcopy(model)
    pairs = [name for name in declared if name.endswith(".qk")]
    assert len(traced) == len(pairs) == 2
    for name, group in zip(pairs, traced.values(), strict=True):
        qk, v = declared[name], declared[f"{name[:-3]}.v"]
        assert (group.kind, group.parts) == (qk.kind, qk.parts + v.parts)
        assert group.units == qk.units + v.units
        assert group.taps[0] == qk.taps[0] and group.taps[1].module == v.reader
        of_pairs, of_values = (some_units(of, generator) for of in (qk, v))
        cuts.append((group, torch.cat([of_pairs, qk.units + of_values])))
        for of, keep in ((qk, of_pairs), (v, of_values)):
            adapter_for(own).cut(own, of, keep)
    cut = copy.deepcopy(model)
    cut_groups(cut, cuts)
    logits = lambda of: getattr(of(images), "logits", of(images))
    with torch.no_grad():
        torch.testing.assert_close(logits(cut), logits(own), rtol=1e-10, atol=1e-12)
        assert not torch.allclose(logits(cut), logits(model), atol=1e-3)


def swin():
    return SwinTransformer(
        img_size=32, patch_size=4, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4)
    )


@pytest.mark.parametrize("fused", [False, True])
def test_window_attention_of_swin(fused, tmp_path):
    """Shrunk with repair, saved and loaded; in code that multiplies by a factor, and fused."""
    set_fused_attn(fused, experimental=fused)
    try:
        model = made(swin)
        groups = inside(traced_network(model, (3, 32, 32)))
        assert {(of.units, of.parts) for of in groups.values()} == {(32, 4), (64, 8)}
        assert all(bool(group.scaled) == fused for group in groups.values())
        options = agflow.recipes.ShrinkOptions(
            groups=("heads", "head_dim", "mlp"), loss="self", allocation=Allocation(round_to=1)
        )
        images = torch.randn(48, 3, 32, 32)
        light = agflow.shrink(model, images, macs=0.7, options=options, report=None).eval()
        assert isinstance(adapter_for(light), TracedModel)
        assert light.layers[0].blocks[0].attn.qkv.out_features < 48
        assert count_macs(light) < 0.72 * count_macs(model)
        save_expert(light, tmp_path / "light")
        again = load_expert(tmp_path / "light").eval()
        with torch.no_grad():
            assert torch.equal(again(images), light(images))
    finally:
        set_fused_attn(True, experimental=False)


@pytest.mark.parametrize("name", ["Heads", "Separate", "Grouped"])
def test_the_repair_is_better_than_none(name):
    model, _ = network_of(name)
    errors = errors_of_a_cut(model, SIZE, ("head_dim",), macs=0.8)
    assert errors[0] < 0.9 * errors[1]


def test_default_plans_leave_head_dims_alone():
    model, _ = network_of("Separate")
    statistics = agflow.calibrate(model, [(torch.randn(4, *SIZE), torch.arange(4))])
    assert "head_dim" not in set(statistics["group"])
