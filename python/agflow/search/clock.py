"""Costs of a candidate by the clock.

Shape suffixes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from agflow._utils.devices import device_of
from agflow._utils.modes import preserve_training_mode
from agflow.cascade.ledger import CascadeCosts
from agflow.evaluation.timing import interleaved
from agflow.models import split

CLOCKED_IMAGES = 32  # in the batch that is timed


@torch.inference_mode()
def measured_costs(
    light: nn.Module, heavy: nn.Module, shared_blocks: int, images_NCHW: torch.Tensor
) -> tuple[CascadeCosts, float]:
    """Time both experts, which take turns, so that drift of the machine affects both alike.

    Parameters
    ----------
    images_NCHW : of which the first are used

    Returns
    -------
    the costs of an image in ms, and the heavy expert's seconds
    """
    x = images_NCHW[:CLOCKED_IMAGES].float().to(device_of(heavy))
    with preserve_training_mode(light, heavy):
        contenders = {"light": light.eval(), "heavy": heavy.eval()}
        if shared_blocks:
            contenders["shared"] = split(heavy, shared_blocks)[0]
        times = interleaved(
            {name: partial(_finish, module, x) for name, module in contenders.items()}, rounds=5
        )
    ms = {name: 1e3 * measured.median / len(x) for name, measured in times.items()}
    costs = CascadeCosts(ms["light"], ms["heavy"], ms.get("shared", 0.0), unit="ms")
    return costs, times["heavy"].median / len(x)


def _finish(module: nn.Module, x: torch.Tensor) -> None:
    """Run a module to its end, on a GPU too."""
    module(x)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
