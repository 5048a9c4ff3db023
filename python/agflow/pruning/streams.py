"""The residual streams of the dense and the pruned network, and running single blocks on them.

Shape suffixes: B images, T tokens, D channels of the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from agflow.pruning.hooks import (
    Calls,
    StopForward,
    recorded_calls,
    removed_on_exit,
    replaced_outputs,
)
from agflow.pruning.residual_blocks import ResidualBlock, stream_of


@dataclass
class Streams:
    """The residual streams of all calibration images before a block, one item a batch.

    Attributes
    ----------
    dense : [B, T, D] each, of the dense network
    pruned : [B, T, D] each, of the network as pruned so far, with the channels that it has left
    arguments : the further arguments of the block
    """

    dense: list[torch.Tensor]
    pruned: list[torch.Tensor]
    arguments: list[tuple[tuple, dict[str, Any]]]


def streams_before(dense: nn.Module, pruned: nn.Module, block: str, loader: Iterable) -> Streams:
    """Run both networks on the images of ``loader`` up to ``block``, and no further."""
    streams = Streams([], [], [])

    def stop_at(stream: list[torch.Tensor]) -> Callable:
        def stop(_, args: tuple, kwargs: dict[str, Any]) -> None:
            stream.append(args[0])
            if stream is streams.dense:
                streams.arguments.append((args[1:], kwargs))
            raise StopForward

        return stop

    device = next(dense.parameters()).device
    networks = {dense: streams.dense, pruned: streams.pruned}
    with removed_on_exit(
        network.get_submodule(block).register_forward_pre_hook(stop_at(stream), with_kwargs=True)
        for network, stream in networks.items()
    ):
        for images, *_ in loader:
            for network in networks:
                with suppress(StopForward):
                    network(images.to(device))
    return streams


def run_block(
    network: nn.Module,
    block: ResidualBlock,
    x_BTD: torch.Tensor,
    arguments: tuple[tuple, dict[str, Any]],
    *,
    until: str | None = None,
    known_outputs: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> tuple[torch.Tensor | None, Calls]:
    """Run one block on the stream before it.

    Parameters
    ----------
    until : the reader behind which the run ends; the whole block when None
    known_outputs : by reader, outputs that need not be computed: their branches do not run

    Returns
    -------
    the stream behind the block, None when the run ended before it, and by reader its input and
    output
    """

    def stop(*_) -> None:
        raise StopForward

    args, kwargs = arguments
    stops = [] if until is None else [until]
    branches = {block.branches[reader]: output_BTD for reader, output_BTD in known_outputs.items()}
    with (
        recorded_calls(network, block.readers) as calls,
        replaced_outputs(network, branches),
        suppress(StopForward),
        removed_on_exit(network.get_submodule(name).register_forward_hook(stop) for name in stops),
    ):
        calls.update({reader: (None, output_BTD) for reader, output_BTD in known_outputs.items()})
        return stream_of(network.get_submodule(block.name)(x_BTD, *args, **kwargs)), calls
    return None, calls


def stream_before_reader(
    block: ResidualBlock, reader: str, x_BTD: torch.Tensor, calls: Calls
) -> torch.Tensor:
    """Return the stream that a reader's output is added to.

    That is the block's input ``x_BTD`` plus the scaled outputs of the readers before this one.
    """
    for earlier in block.readers[: block.readers.index(reader)]:
        x_BTD = x_BTD + block.scales[earlier] * calls[earlier][1]
    return x_BTD
