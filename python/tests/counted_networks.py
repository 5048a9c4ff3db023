"""What torch counts of a network, and what a repair does for it."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import agflow
from agflow.pruning import Allocation
from agflow.recipes import ShrinkOptions


def macs_of(model: nn.Module, size: Sequence[int]) -> int:
    """Multiply-accumulates of an image of a size [C, H, W], as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *size))
    return counter.get_total_flops() // 2


def errors_of_a_cut(
    model: nn.Module, size: Sequence[int], groups: tuple[str, ...], macs: float
) -> tuple[float, float]:
    """How far a cut model's outputs are from the dense one's: repaired, and not repaired."""
    images = torch.randn(96, *size)

    def error(compensate: str) -> float:
        options = ShrinkOptions(
            groups=groups,
            loss="self",
            compensate=compensate,
            allocation=Allocation(round_to=1),
        )
        light = agflow.shrink(model, images, macs=macs, options=options, report=None).eval()
        with torch.no_grad():
            return (light(images) - model(images)).norm().item()

    return error("ridge"), error("none")
