"""Masks equal cuts in float64, and leave the model as it was."""

import copy

import pytest
import torch
from small_groups import NETWORKS, group, network, some_units
from torch import nn

from agflow.errors import UnknownLayerError
from agflow.models import Tap
from agflow.models.families.timm_vit import TimmVisionTransformer
from agflow.models.slicing import cut_groups
from agflow.pruning.masks import masked

ADAPTER = TimmVisionTransformer()  # hooks fire on its models as they are, as on any here


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_by_members_equal_the_cut(name):
    model, groups, x = network(name)
    dense, state = model(x), copy.deepcopy(model.state_dict())
    for seed in range(3):
        cuts = some_units(groups, seed)
        light = copy.deepcopy(model)
        cut_groups(light, cuts)
        with masked(ADAPTER, model, cuts):
            torch.testing.assert_close(model(x), light(x), rtol=1e-12, atol=1e-12)
        assert torch.equal(model(x), dense)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_channels_of_maps_are_masked_where_they_are_seen():
    model, _, x = network("convolutions")
    made = group("project", 6, [], reader="left", taps=(Tap("project", "output", axis=1),))
    read = group("expand", 8, [], reader="project", taps=(Tap("project", axis=1),))
    inputs = {}
    with masked(ADAPTER, model, [(made, torch.tensor([1, 4])), (read, torch.tensor([7]))]):
        for module in (model.project, model.left):
            module.register_forward_pre_hook(lambda of, x: inputs.__setitem__(of, x[0]))
        model(x)
    for module, kept in ((model.project, [7]), (model.left, [1, 4])):
        left_C = inputs[module].abs().amax((0, 2, 3)) > 0
        assert left_C.nonzero().flatten().tolist() == kept


def test_a_removed_branch_returns_its_input():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    x, branch = torch.randn(2, 3), group("0", 1, [], kind="block", may_vanish=True)
    with masked(ADAPTER, model, [(branch, torch.tensor([], dtype=torch.int64))]):
        assert torch.equal(model(x), x.relu())
    with masked(ADAPTER, model, [(branch, torch.tensor([0]))]):
        assert not torch.equal(model(x), x.relu())


def test_a_group_of_another_model_leaves_nothing_masked():
    model, (own, *_), x = network("convolutions")
    dense = model(x)
    foreign = group("g", 2, [*own.of("consumer")[:0], *network("packed")[1][0].members])
    with (
        pytest.raises(UnknownLayerError, match=r"group g has units in proj\.weight"),
        masked(ADAPTER, model, [(own, torch.tensor([0])), (foreign, torch.tensor([0]))]),
    ):
        pass
    assert torch.equal(model(x), dense)
