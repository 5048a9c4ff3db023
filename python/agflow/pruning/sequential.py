"""Sequential (layer-wise) reconstruction: fit each reader to the network pruned before it.

Removed units leave an error in the residual stream, and the blocks behind them read that error. The
readers are therefore fitted in the order in which they run, each on the network whose earlier
readers are already pruned and fitted (:mod:`agflow.pruning.reconstruction` has the target).

A downstream reader that loses no input can be fitted, too: it takes back what it can of the error
before it. (DeiT-Tiny, MLPs pruned by 75 %, with and without the attention's projections fitted. 256
images of ten classes: KL divergence from the dense model 0.555 and 0.610 on 400 others, top-1 73.1
and 72.8 % on 800, which is no difference. Other classes than those of the test, 250 images to fit
and 250 to test, and the reverse: top-1 34.6 and 33.2 %.)

Half of a token's weight is uniform and half follows from how much the logits depend on it: behind
the last block only a class token counts.

The pruned network may have lost branches and channels of the stream before; the two networks are
then compared on the channels that are left.

Shape suffixes: B images, T tokens, K kept inputs, D channels of the stream and of readers' outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from agflow._utils.devices import device_of
from agflow._utils.modes import preserve_training_mode
from agflow._utils.progress import progress_bar
from agflow.models import Adapter, ChannelGroup
from agflow.models.copying import watched
from agflow.pruning.reconstruction import fit_reader
from agflow.pruning.residual_blocks import ResidualBlock, find_residual_blocks
from agflow.pruning.streams import Streams, run_block, stream_before_reader, streams_before

Apply = Callable[[str, torch.Tensor, "torch.Tensor | None"], None]
"""Takes (reader, weight_DK, bias_D): removes the reader's lost inputs and sets its weights."""


def reconstruct_sequentially(
    adapter: Adapter,
    dense: nn.Module,
    pruned: nn.Module,
    kept_inputs: Mapping[str, torch.Tensor],
    sample: torch.Tensor,
    loader: Iterable,
    apply: Apply,
    *,
    kept_stream_D: torch.Tensor | None = None,
) -> None:
    """Prune and fit the readers of ``pruned``, a copy of ``dense`` in evaluation mode, one by one.

    The images pass the blocks before the first reader once, in either network. From there on their
    residual streams are held: two between blocks, a third inside them (images * T * D values of the
    model's type each), and the inputs of the reader being fitted (images * T * K). Everything else
    is computed batch by batch. Each block runs once in the dense network and once in the pruned
    one: up to a reader, and on from the reader's output after its fit. (Where an attention module
    returns more than its reader's output, as in Transformers and torchvision, it runs once more.)

    Parameters
    ----------
    pruned : every reader still has all its inputs; branches may be gone with their readers, and
        channels of the stream
    kept_inputs : by reader that is to be fitted, the inputs that it keeps, ascending int64
    sample : images [B, C, H, W] on which the blocks are found and the tokens weighed
    loader : batches of images [B, C, H, W], with or without labels
    apply : sets the fitted weights
    kept_stream_D : channels of the stream that ``pruned`` has, ascending int64; all when None

    Raises
    ------
    InvalidValueError
        The model is no sequence of blocks that add their readers' outputs to a stream.
    NonFiniteError
        The activations hold NaN or infinity.
    """
    with (
        torch.no_grad(),
        preserve_training_mode(dense),
        watched(adapter, dense),
        watched(adapter, pruned),
    ):
        dense.eval()
        readers = readers_of(adapter.layers(dense))
        blocks = find_residual_blocks(dense, readers, sample, adapter.output_scales(dense))
        fitted = [
            i
            for i, block in enumerate(blocks)
            if any(reader in kept_inputs for reader in block.readers)
        ]
        if not fitted:
            return
        kept_D = slice(None) if kept_stream_D is None else kept_stream_D.to(device_of(dense))
        streams = streams_before(dense, pruned, blocks[fitted[0]].name, loader)
        for block in progress_bar(blocks[fitted[0] : fitted[-1] + 1], "reconstruction"):
            _reconstruct_block(dense, pruned, block, kept_inputs, streams, apply, kept_D)


def readers_of(layers: Iterable[ChannelGroup]) -> list[str]:
    """Return the names of the layers' readers, each once, in the order of the layers."""
    return list(dict.fromkeys(layer.reader for layer in layers if layer.reader))


def _reconstruct_block(
    dense: nn.Module,
    pruned: nn.Module,
    block: ResidualBlock,
    kept_inputs: Mapping[str, torch.Tensor],
    streams: Streams,
    apply: Apply,
    kept_D: torch.Tensor | slice,
) -> None:
    """Fit the block's readers one after the other, and take both streams across the block."""
    pruned_block = _pruned_block(block, pruned, kept_D)
    readers = [reader for reader in pruned_block.readers if reader in kept_inputs]
    dense_behind = _advance_dense(dense, block, readers, streams, kept_D)
    outputs: dict[str, list[torch.Tensor]] = {}  # by fitted reader, its new outputs by batch
    for reader in readers:
        weight_DK, bias_D, inputs = fit_reader(
            pruned,
            pruned_block,
            reader,
            kept_inputs[reader],
            dense_behind.pop(reader),
            streams,
            outputs,
        )
        apply(reader, weight_DK, bias_D)
        outputs[reader] = [
            nn.functional.linear(inputs.pop(0), weight_DK, bias_D) for _ in streams.pruned
        ]
    _advance_pruned(pruned, pruned_block, streams, outputs)


def _pruned_block(
    block: ResidualBlock, pruned: nn.Module, kept_D: torch.Tensor | slice
) -> ResidualBlock:
    """Describe the block in the pruned network, without removed readers and stream channels."""
    present = set(dict(pruned.named_modules()))
    return replace(
        block,
        readers=tuple(reader for reader in block.readers if reader in present),
        scales={reader: scale_D[kept_D] for reader, scale_D in block.scales.items()},
    )


def _advance_dense(
    dense: nn.Module,
    block: ResidualBlock,
    readers: Sequence[str],
    streams: Streams,
    kept_D: torch.Tensor | slice,
) -> dict[str, list[torch.Tensor]]:
    """Take the dense stream across the block; returns it right behind each of ``readers``."""
    behind: dict[str, list[torch.Tensor]] = {reader: [] for reader in readers}
    for i, x_BTD in enumerate(streams.dense):
        out_BTD, calls = run_block(dense, block, x_BTD, streams.arguments[i])
        for reader in readers:
            if reader == block.readers[-1]:
                behind_BTD = out_BTD
            else:
                behind_BTD = (
                    stream_before_reader(block, reader, x_BTD, calls)
                    + block.scales[reader] * calls[reader][1]
                )
            behind[reader].append(behind_BTD[..., kept_D])
        streams.dense[i] = out_BTD
    return behind


def _advance_pruned(
    pruned: nn.Module,
    block: ResidualBlock,
    streams: Streams,
    outputs: Mapping[str, list[torch.Tensor]],
) -> None:
    """Take the pruned stream across the block, given the outputs of the readers just fitted."""
    last = block.readers[-1]
    for i, x_BTD in enumerate(streams.pruned):
        if last in outputs:  # its fit left the stream right before it, and nothing follows it
            streams.pruned[i] = x_BTD + block.scales[last] * outputs[last][i]
        else:
            known_outputs = {reader: batches[i] for reader, batches in outputs.items()}
            streams.pruned[i], _ = run_block(
                pruned, block, x_BTD, streams.arguments[i], known_outputs=known_outputs
            )
