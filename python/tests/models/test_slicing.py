"""Cutting groups by their members: the cut network computes what the masked one does."""

import copy

import pytest
import torch
from small_groups import (
    NETWORKS,
    consumer,
    group,
    network,
    producer,
    some_units,
    through,
)
from torch import nn

from agflow.errors import InvalidValueError, ShapeError, UnknownLayerError
from agflow.models.channel_group import Attribute, Member, Run
from agflow.models.group_weights import weights_of
from agflow.models.slicing import cut_group, cut_groups


def masked_output(model, cuts, x):
    """Output of a copy that does not read the removed units."""
    model = copy.deepcopy(model)
    for of, keep_U in cuts:
        for member in of.of("consumer"):
            weight = model.get_parameter(member.name)
            units_S = member.unit_of(weight.shape[member.axis], of.units)
            gone_S = (units_S >= 0) & ~torch.isin(units_S, keep_U)
            weight.data.index_fill_(member.axis, gone_S.nonzero().flatten(), 0)
    return model(x)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_cut_network_is_the_masked_one(name):
    model, groups, x = network(name)
    for cuts in (*([cut] for cut in some_units(groups)), some_units(groups, 1)):
        light = copy.deepcopy(model)
        cut_groups(light, cuts)
        assert not torch.allclose(model(x), light(x))
        torch.testing.assert_close(light(x), masked_output(model, cuts, x), rtol=1e-12, atol=1e-12)


def test_sizes_of_torchs_layers_follow():
    model, groups, _ = network("convolutions")
    cut_groups(model, [(of, torch.arange(of.units - 1)) for of in groups])
    assert repr(model) == repr(
        nn.ModuleDict(
            {
                "expand": nn.Conv2d(3, 7, 1, bias=False),
                "norm": nn.BatchNorm2d(7),
                "depthwise": nn.Conv2d(7, 7, 3, padding=1, groups=7),
                "squeeze": nn.Conv2d(7, 2, 1),
                "excite": nn.Conv2d(2, 7, 1),
                "project": nn.Conv2d(7, 6, 1),
                "left": nn.Conv2d(6, 3, 1),
                "right": nn.Conv2d(6, 5, 1),
                "both": nn.GroupNorm(8, 8),
                "flat": nn.Linear(8 * 16, 5),
            }
        )
    ).replace("ModuleDict", "Convolutions")


@pytest.mark.parametrize(
    ("layer", "axis", "sizes"),
    [
        (nn.Conv1d(4, 6, 3), 0, {"out_channels": 5}),
        (nn.Conv3d(4, 6, 3), 1, {"in_channels": 3}),
        (nn.ConvTranspose2d(4, 6, 3), 0, {"in_channels": 3, "out_channels": 6}),
        (nn.ConvTranspose2d(4, 6, 3), 1, {"in_channels": 4, "out_channels": 5}),
        (nn.Linear(4, 6), 1, {"in_features": 3}),
        (nn.LayerNorm(6), 0, {"normalized_shape": (5,)}),
        (nn.RMSNorm(6), 0, {"normalized_shape": (5,)}),
        (nn.BatchNorm3d(6), 0, {"num_features": 5}),
        (nn.SyncBatchNorm(6), 0, {"num_features": 5}),
        (nn.InstanceNorm1d(6, affine=True), 0, {"num_features": 5}),
        (nn.Embedding(4, 6), 1, {"num_embeddings": 4, "embedding_dim": 5}),
        (nn.PReLU(6), 0, {"num_parameters": 5}),
        (nn.Bilinear(4, 5, 6), 2, {"in1_features": 4, "in2_features": 4, "out_features": 6}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_each_layer_of_torch_has_its_sizes_set(layer, axis, sizes):
    units = layer.weight.shape[axis]
    member = Member("layer.weight", axis, "through")
    cut_group(nn.ModuleDict({"layer": layer}), group("g", units, [member]), torch.arange(units - 1))
    assert {name: getattr(layer, name) for name in sizes} == sizes


def test_a_norm_without_weights_follows_its_statistics():
    model = nn.ModuleDict({"norm": nn.BatchNorm2d(4, affine=False)})
    cut_group(
        model,
        group("g", 4, through("norm", "running_mean", "running_var")),
        torch.tensor([0, 2]),
    )
    assert model["norm"].num_features == 2 and isinstance(model["norm"].running_mean, torch.Tensor)
    assert set(dict(model.named_buffers())) == {
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }


def grouped(members, units):
    model = nn.ModuleDict({"before": nn.Conv2d(3, 8, 1), "of_groups": nn.Conv2d(8, 8, 1, groups=4)})
    return model, group("g", units, members)


def test_whole_groups_of_a_convolution_are_cut():
    members = [
        producer("before", Run(0, 2)),
        *through("before", runs=(Run(0, 2),)),
        *through("of_groups", "weight", "bias", runs=(Run(0, 2),)),
    ]
    model, of = grouped(members, 4)
    cut_group(model, of, torch.tensor([1, 3]))
    layer = model["of_groups"]
    assert (layer.groups, layer.in_channels, layer.out_channels) == (2, 4, 4)
    assert model["of_groups"](model["before"](torch.randn(1, 3, 2, 2))).shape == (1, 4, 2, 2)


def test_the_same_channels_in_every_group_of_a_convolution_are_cut():
    runs = (Run(0, 1, repeats=4, period=2),)
    model, of = grouped([producer("of_groups", *runs), *through("of_groups", runs=runs)], 2)
    cut_group(model, of, torch.tensor([1]))
    layer = model["of_groups"]
    assert (layer.groups, layer.in_channels, layer.out_channels) == (4, 8, 4)


def test_unequal_groups_of_a_convolution_are_refused():
    model, of = grouped([producer("of_groups"), *through("of_groups")], 8)
    with pytest.raises(InvalidValueError, match="Conv2d has 4 groups, and 1 to 2 channels of one"):
        cut_group(model, of, torch.tensor([0, 1, 2, 4, 6]))


def test_what_a_cut_leaves_alone():
    model, (of, *_), x = network("convolutions")
    model.expand.weight.requires_grad_(False)
    model.to(memory_format=torch.channels_last)
    cut_group(model, of, torch.tensor([1, 4, 6]))
    assert not model.expand.weight.requires_grad and model.project.weight.requires_grad
    assert model.expand.weight.dtype == torch.float64
    assert model.depthwise.weight.is_contiguous(memory_format=torch.channels_last)
    model(x).sum().backward()
    assert model.project.weight.grad.shape == (6, 3, 1, 1)


def test_shared_modules_and_parameters_are_cut_once_and_stay_shared():
    layer, tied = nn.Linear(4, 6), nn.Linear(4, 6)
    tied.weight = layer.weight
    model = nn.ModuleDict({"first": layer, "again": layer, "tied": tied})
    model["first"].per_head = 6
    members = [
        member for name in ("first", "again", "tied") for member in (producer(name), *through(name))
    ]
    attributes = Attribute("first", "per_head", per_unit=1), Attribute("again", "per_head", None, 1)
    cut_group(model, group("g", 6, members, attributes=attributes), torch.tensor([0, 3]))
    assert model["first"] is model["again"] and tied.weight is layer.weight
    assert layer.weight.shape == (2, 4) and tied.out_features == 2 and layer.per_head == 2


def test_attributes_follow_the_units():
    model = nn.Module()
    model.attn_dim, model.shape, model.sizes = 192, (3, 7), [4, 10]
    attributes = (
        Attribute("", "attn_dim"),
        Attribute("", "shape", place=0),
        Attribute("", "sizes", place=1, per_unit=2),
    )
    cut_group(model, group("g", 3, [], attributes=attributes), torch.tensor([0, 2]))
    assert (model.attn_dim, model.shape, model.sizes) == (128, (2, 7), [4, 8])


def test_a_width_for_each_part_follows_the_units_of_all():
    assert Attribute("", "head_dim").after(64, units=192, kept=96) == 32


def test_a_vanished_branch_is_an_identity():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    cut_group(model, group("1", 1, [], kind="block", may_vanish=True), torch.tensor([]))
    assert isinstance(model[1], nn.Identity)


def test_a_branch_goes_with_the_groups_inside_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    model[1][0].hidden = 3
    branch = group("1", 1, [], kind="block", may_vanish=True)
    members = [producer("1.0"), *through("1.0"), consumer("1.1")]
    inside = group("1.0", 3, members, attributes=(Attribute("1.0", "hidden"),))
    cut_groups(model, [(branch, torch.tensor([])), (inside, torch.tensor([1]))])
    assert isinstance(model[1], nn.Identity)


def test_groups_of_another_model_are_refused():
    model = nn.Sequential(nn.Linear(4, 6))
    with pytest.raises(UnknownLayerError, match=r"group g has units in 1\.weight"):
        cut_group(model, group("g", 6, [producer("1")]), torch.arange(3))
    with pytest.raises(ShapeError, match=r"reach to position 8 of axis 0 of 0\.weight, which is"):
        cut_group(model, group("g", 8, [producer("0")]), torch.arange(3))
    with pytest.raises(ShapeError, match=r"axis 2 of 0\.weight"):
        cut_group(model, group("g", 6, [producer("0", axis=2)]), torch.arange(3))
    of = group("g", 6, [producer("0")])
    for keep, message in (([], "no unit"), ([2, 1], "ascending"), ([5, 6], "from 0 to 5")):
        with pytest.raises(InvalidValueError, match=message):
            cut_group(model, of, torch.tensor(keep, dtype=torch.int64))
    assert model[0].weight.shape == (6, 4), "nothing was cut before the refusal"


def test_weights_have_the_units_in_order():
    model, (expanded, left, right), _ = network("convolutions")
    matrices = weights_of(model, expanded)
    assert [(tuple(matrix.shape), axis) for matrix, axis in matrices] == [
        ((8, 3), 0),
        ((8, 2), 0),
        ((6, 8), 1),
        ((2, 8), 1),
    ]
    assert matrices[0][0].data_ptr() == model.expand.weight.data_ptr(), "a view"
    ((left_CR, _), (left_RC, axis)), (_, (right_RC, _)) = (
        weights_of(model, of) for of in (left, right)
    )
    assert left_CR.shape == (4, 6) and left_RC.shape == (5 * 16, 4) and axis == 1
    assert right_RC.shape == (5 * 16, 6)
    flat = model.flat.weight.view(5, 10, 16)
    assert torch.equal(right_RC[:, 2].sort().values, flat[:, 6].flatten().sort().values)


def test_packed_rows_are_one_matrix_for_each_part():
    model, (heads, hidden), _ = network("packed")
    q, k, v, read = weights_of(model, heads)
    assert [
        torch.equal(part, model.qkv.weight[rows : rows + 12])
        for (part, _), rows in ((q, 0), (k, 12), (v, 24))
    ] == [True] * 3
    assert read[1] == 1 and torch.equal(read[0], model.proj.weight)
    gate, value, _ = weights_of(model, hidden)
    assert torch.equal(gate[0], model.gate_and_value.weight[:6])
    assert torch.equal(value[0], model.gate_and_value.weight[6:])


def test_repeated_channels_are_in_one_row_or_column():
    model = nn.ModuleDict({"reads": nn.Linear(6, 2), "shuffled": nn.Linear(5, 6)})
    runs = (Run(0, 1, repeats=3, period=2),)
    of = group("g", 2, [producer("shuffled", *runs), consumer("reads", *runs)])
    (made, _), (read, _) = weights_of(model, of)
    rows = model["shuffled"].weight
    assert torch.equal(made[1].view(3, 5), rows[[1, 3, 5]]), "every row of the unit"
    assert torch.equal(read[:, 0].view(3, 2).T, model["reads"].weight[:, [0, 2, 4]])


def test_units_of_another_width_have_no_matrix():
    model = nn.Sequential(nn.Linear(5, 6))
    of = group("g", 2, [producer("0", Run(0, 3))], unit_width=2)
    assert weights_of(model, of) == []
