"""The residual streams of the dense and the pruned network, and running single blocks on them.

Shape suffixes: B images, T tokens, D channels of the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.hooks import temporary_hooks
from agflow.data.batches import image_batches
from agflow.pruning.hooks import (
    Calls,
    StopForward,
    recorded_calls,
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

    weight = first_parameter(dense)
    networks = {dense: streams.dense, pruned: streams.pruned}
    with temporary_hooks(
        network.get_submodule(block).register_forward_pre_hook(stop_at(stream), with_kwargs=True)
        for network, stream in networks.items()
    ):
        for images in image_batches(loader):
            for network in networks:
                with suppress(StopForward):
                    network(images.to(weight))
    return streams


def run_block(
    network: nn.Module,
    block: ResidualBlock,
    x_BTD: torch.Tensor,
    arguments: tuple[tuple, dict[str, Any]],
    *,
    known_outputs: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> tuple[torch.Tensor, Calls]:
    """Run one block on the stream before it.

    Parameters
    ----------
    known_outputs : by reader, outputs that need not be computed: their branches do not run

    Returns
    -------
    the stream behind the block, and by reader its input and output
    """
    args, kwargs = arguments
    with _observed(network, block, known_outputs) as calls:
        return stream_of(network.get_submodule(block.name)(x_BTD, *args, **kwargs)), calls


def run_to_reader(
    network: nn.Module,
    block: ResidualBlock,
    reader: str,
    x_BTD: torch.Tensor,
    arguments: tuple[tuple, dict[str, Any]],
    *,
    known_outputs: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Calls:
    """Run one block as :func:`run_block` does, but no further than ``reader``.

    Returns
    -------
    by reader up to that one, its input and output
    """

    def stop(*_) -> None:
        raise StopForward

    args, kwargs = arguments
    with (
        _observed(network, block, known_outputs) as calls,
        suppress(StopForward),
        temporary_hooks([network.get_submodule(reader).register_forward_hook(stop)]),
    ):
        network.get_submodule(block.name)(x_BTD, *args, **kwargs)
    return calls


@contextmanager
def _observed(
    network: nn.Module, block: ResidualBlock, known_outputs: Mapping[str, torch.Tensor]
) -> Iterator[Calls]:
    """Record the calls of the block's readers; the known outputs stand for their branches."""
    branches = {block.branches[reader]: output_BTD for reader, output_BTD in known_outputs.items()}
    with recorded_calls(network, block.readers) as calls, replaced_outputs(network, branches):
        calls.update({reader: (None, output_BTD) for reader, output_BTD in known_outputs.items()})
        yield calls


def stream_before_reader(
    block: ResidualBlock, reader: str, x_BTD: torch.Tensor, calls: Calls
) -> torch.Tensor:
    """Return the stream that a reader's output is added to.

    That is the block's input ``x_BTD`` plus the scaled outputs of the readers before this one.
    """
    for earlier in block.readers[: block.readers.index(reader)]:
        x_BTD = x_BTD + block.scales[earlier] * calls[earlier][1]
    return x_BTD
