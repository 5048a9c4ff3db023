"""Residual branches: a block that has lost one, or both, and whether a block is a known one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

Chain = tuple[str, ...]
"""Names of a residual branch's modules below their block, in the order in which they are called."""

Knows = Callable[[nn.Module], bool]
"""Whether a family knows what a module computes."""


class Branches(nn.Module):
    """A pre-norm block that has lost branches: x + branch(x) for each branch that is left.

    It replaces the family's own block; its modules keep their names.

    Attributes
    ----------
    chains : the branches that are left; without any the block returns its input
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
        """The stream behind the block; masks, which no model here passes, are ignored."""
        for chain in self.chains:
            y_BTD = x_BTD
            for name in chain:
                y_BTD = self.get_submodule(name)(y_BTD)
                if isinstance(y_BTD, tuple):  # of an attention: output and weights
                    y_BTD = y_BTD[0]
            x_BTD = x_BTD + y_BTD
        return x_BTD


def chains_of(block: nn.Module, whole: Iterable[Chain]) -> tuple[Chain, ...]:
    """The branches of a block: those of ``whole`` unless some were dropped."""
    return block.chains if type(block) is Branches else tuple(whole)


def knows_block(
    block: nn.Module,
    whole: tuple[Chain, Chain],
    norm_kind: type[nn.Module],
    knows_attention: Knows,
    knows_mlp: Knows,
) -> bool:
    """Whether the parts of a block of a known class are known, too.

    Its branches begin with a norm, and what follows the norm holds the units.

    Parameters
    ----------
    whole : the branches of a dense block, attention and MLP
    norm_kind : the class that the norms must have
    knows_attention, knows_mlp : whether the modules that hold the units are known
    """
    left = chains_of(block, whole)
    return all(type(getattr(block, norm)) is norm_kind for norm, *_ in left) and all(
        knows(getattr(block, chain[1]))
        for chain, knows in zip(whole, (knows_attention, knows_mlp), strict=True)
        if chain in left
    )
