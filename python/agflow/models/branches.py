"""A block that has lost a residual branch, or both."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

Chain = tuple[str, ...]
"""The modules of a residual branch below their block, in the order in which the stream goes through them."""


class Branches(nn.Module):
    """Takes the place of a family's own pre-norm block: x + branch(x) for each branch left, modules named as before.

    Attributes
    ----------
    chains : what is left; without any the block gives what it gets
    """

    def __init__(self, block: nn.Module, chains: Iterable[Chain]):
        """Of the modules of ``block``, those in ``chains``."""
        super().__init__()
        self.chains = tuple(chains)
        for name, module in block.named_children():
            if any(name == part.partition(".")[0] for chain in self.chains for part in chain):
                self.add_module(name, module)
        self.training = block.training

    def forward(self, x_BTD: torch.Tensor, *_, **__) -> torch.Tensor:
        """The stream behind the block; masks, which none of the blocks is given, are not looked at."""
        for chain in self.chains:
            y_BTD = x_BTD
            for name in chain:
                y_BTD = self.get_submodule(name)(y_BTD)
                if isinstance(y_BTD, tuple):  # an attention that would also give its weights
                    y_BTD = y_BTD[0]
            x_BTD = x_BTD + y_BTD
        return x_BTD


def chains_of(block: nn.Module, whole: Iterable[Chain]) -> tuple[Chain, ...]:
    """The branches a block has: those of ``whole`` unless some were dropped."""
    return block.chains if type(block) is Branches else tuple(whole)
