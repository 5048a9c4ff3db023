"""Residual blocks are found with their scales and token weights; other models are refused."""

import pytest
import torch
from torch import nn

from agflow.errors import InvalidValueError
from agflow.models import adapter_for
from agflow.pruning.residual_blocks import find_residual_blocks
from agflow.pruning.sequential import readers_of


def test_tokens_are_weighted_by_what_the_logits_depend_on(make_vit, images):
    """Behind the last block only the class token counts, or with average pooling all others."""
    weights = {}
    for pool in ("token", "avg"):
        model = make_vit(global_pool=pool)
        for block in find_residual_blocks(
            model, readers_of(adapter_for(model).layers(model)), images[0]
        ):
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
    found = find_residual_blocks(row(add, scaled), both, x)
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
            find_residual_blocks(model, readers, x)
        assert "use compensate='ridge_at_once'" in str(caught.value) and "\n" not in str(
            caught.value
        )
