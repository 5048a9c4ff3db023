"""Gradients of weights that a criterion's matrix is gathered from, and no view of."""

import torch
from small_groups import group, network

from agflow.calibration.weight_gradients import WeightGradients
from agflow.calibration.weights import attached_weights
from agflow.models.families.timm_vit import TimmVisionTransformer
from agflow.models.group_weights import weights_of


class ByMembers(TimmVisionTransformer):
    """An adapter whose weights are those of the members."""

    def weights(self, model, layer):
        return weights_of(model, layer)


def test_gradients_of_gathered_weights_are_summed():
    model, groups, x = network("convolutions")
    with WeightGradients(ByMembers(), model, groups) as gradients:
        assert model.flat.weight in set(gradients.parameters)
        assert model.depthwise.weight not in set(gradients.parameters), "it is passed through"
        for images in (x, 2 * x):
            model(images).sum().backward()
            gradients.add_batch(())
        sums = gradients.as_model()
    (model(x).sum() + model(2 * x).sum()).backward()
    expected = model.flat.weight.grad[:, 64:].view(5, 6, 16).transpose(1, 2)
    _, (read, axis) = weights_of(sums, groups[2])
    assert axis == 1
    torch.testing.assert_close(read.sort(0).values, expected.reshape(-1, 6).sort(0).values)


def test_a_branch_without_members_has_no_weights():
    model, groups, _ = network("convolutions")
    branch = group("project", 1, [], kind="block", unit_width=6, may_vanish=True)
    attached = attached_weights(ByMembers(), model, [branch, groups[0]])
    assert {index for index, *_ in attached} == {1}
