"""Residual branches: a block that has lost one, or both, and the reasons against a block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn

Chain = tuple[str, ...]
"""Names of a residual branch's modules below their block, in the order in which they are called."""

Refusals = Callable[[nn.Module], Iterator[str]]
"""Yields every reason against a module."""


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


def block_refusals(
    block: nn.Module,
    whole: tuple[Chain, Chain],
    norm_kind: type[nn.Module],
    norm_name: str,
    attention_refusals: Refusals,
    mlp_refusals: Refusals,
) -> Iterator[str]:
    """Yield every reason against a block of a known class.

    Its branches begin with a norm, and what follows the norm holds the units.

    Parameters
    ----------
    whole : the branches of a dense block, attention and MLP
    norm_kind, norm_name : the class that the norms must have, and what messages call it
    attention_refusals, mlp_refusals : reasons against the modules that hold the units
    """
    left = chains_of(block, whole)
    for chain, refusals in zip(whole, (attention_refusals, mlp_refusals), strict=True):
        if chain in left:
            yield from refusals(getattr(block, chain[1]))
    for norm, *_ in left:
        if type(getattr(block, norm)) is not norm_kind:
            yield (
                f"a norm of class {type(getattr(block, norm)).__name__} is not supported, expected "
                f"{norm_name}"
            )
