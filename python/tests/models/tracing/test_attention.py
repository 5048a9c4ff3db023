"""Attention as the graph shows it: heads and gated layers, found and proven in any spelling."""

import pytest
import torch
from counted_networks import macs_of
from small_attention import NETWORKS, Packed, Transformer
from small_vits import of_timm, of_torchvision, of_transformers
from torch import nn

from agflow.models import adapter_for
from agflow.models.channel_group import Tap
from agflow.models.slicing import cut_groups
from agflow.models.tracing.network import traced_network
from agflow.models.tracing.proof import Proof

SIZE = (3, 8, 8)


def network_of(name):
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    return model, traced_network(model, SIZE)


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_and_gated_layers_are_groups(name):
    _, network = network_of(name)
    heads, mlp = (next(g for g in network.groups if g.kind == kind) for kind in ("heads", "mlp"))
    grouped = name.startswith("grouped queries")
    assert (heads.units, heads.unit_width) == ((2, 8) if grouped else (3, 4))
    assert not heads.rounds
    assert heads.reader.endswith("proj")
    assert heads.seen_at == (Tap(heads.reader, "input", axis=-1),)
    assert {attribute.name for attribute in heads.attributes} >= {"heads"}
    assert (mlp.units, mlp.reader) == (10, "mlp.down")
    assert {m.name: m.unit_of(20, 10).tolist() for m in mlp.of("producer")}["mlp.up.weight"] == [
        *range(10),
        *range(10),
    ]


def all_but_one(group):
    """The units of each part without the last."""
    width = group.units // group.parts
    return torch.tensor([unit for unit in range(group.units) if unit % width < width - 1])


@pytest.mark.parametrize("name", NETWORKS)
def test_costs_are_those_of_the_cut_model(name):
    model, network = network_of(name)
    assert network.costs.macs() == macs_of(model, SIZE)
    keeps = [(group, all_but_one(group)) for group in network.groups if not group.may_vanish]
    cut_groups(model, keeps)
    kept = {group.name: len(keep) // group.parts for group, keep in keeps}
    assert network.costs.macs(kept) == macs_of(model, SIZE)


def test_a_table_of_biases_goes_with_the_heads():
    _, network = network_of("bias of a table")
    heads = next(group for group in network.groups if group.kind == "heads")
    assert ("attention.table", 1) in {(m.name, m.axis) for m in heads.of("through")}


class Free(Packed):
    """Its code computes with no number of heads."""

    def forward(self, x):
        qkv = self.qkv(x).unflatten(-1, (3, -1, 4)).permute(2, 0, 3, 1, 4)
        return self.proj(self.attend(*qkv).transpose(1, 2).flatten(2))


class Many(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def test_numbers_of_one_block_are_tried_for_all_others_at_once(monkeypatch):
    checks, refusal = [], Proof.refusal
    monkeypatch.setattr(
        Proof, "refusal", lambda self, cuts: checks.append(cuts) or refusal(self, cuts)
    )
    blocks = [*(Packed() for _ in range(5)), Free(), *(Packed() for _ in range(6))]
    network = traced_network(Transformer(Many(blocks)).eval(), SIZE)
    heads = [group for group in network.groups if group.kind == "heads"]
    assert len(heads) == len(blocks)
    for group, block in zip(heads, blocks, strict=True):
        wanted = set() if isinstance(block, Free) else {"heads", "inner"}
        assert {attribute.name for attribute in group.attributes} == wanted
    assert len(checks) < 40  # each block by itself would take five


def test_what_stands_in_the_code_is_named_with_its_module():
    class Fixed(Packed):
        def forward(self, x):
            rows, tokens, width = x.shape
            q, k, v = self.qkv(x).reshape(rows, tokens, 3, self.heads, 4).permute(2, 0, 3, 1, 4)
            return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(rows, tokens, width))

    network = traced_network(Transformer(Many([Fixed()])).eval(), SIZE)
    assert not [group for group in network.groups if group.kind == "heads"]
    unfit = [kept for kept in network.kept if "does not run" in kept.reason]
    kept, _ = (kept for kept in unfit if kept.name == "attention.blocks.0.qkv")
    assert kept.channels == 3
    assert kept.reason.endswith(
        "without them: the code of attention.blocks.0 reshapes by the width of its input: width "
        "in `return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(rows, tokens, width))`"
    )


def members_of(groups, kinds):
    """By what is read at its front and the number of units, where producers and readers lie."""
    return {
        group.reader: (group.units, group.unit_width, group.seen_at[0].module)
        for group in groups
        if group.kind in kinds
    }


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (of_timm, ("heads", "mlp")),
        (of_torchvision, ("mlp",)),
        (of_transformers, ("mlp",)),
    ],
)
def test_what_a_family_declares_the_trace_finds(make, kinds):
    torch.manual_seed(0)
    model = make().eval()
    declared, traced = (
        members_of(groups, kinds)
        for groups in (
            adapter_for(model).layers(model),
            traced_network(model, (3, 32, 32)).groups,
        )
    )
    assert declared == traced
    assert declared
