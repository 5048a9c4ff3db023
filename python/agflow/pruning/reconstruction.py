"""Fit one reader of the pruned network to the dense network by least squares.

The weight predicts, from the units that are kept, a target halfway between the reader's own output
and the output that would bring the residual stream back to that of the dense network:

    target = o + (s_dense - s) / (2 γ)

with o the output of the reader before its units are removed, s the stream with γ o added, and γ the
factor of the block (1, or a LayerScale). A reader that adds next to nothing to the stream has o
alone as its target.

Shape suffixes: B images, T tokens, C inputs of the reader before pruning, K kept inputs, D channels
of the residual stream.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from agflow._utils.modules import linear_at
from agflow.errors import NonFiniteError
from agflow.pruning.regression import Regression, best_penalty
from agflow.pruning.residual_blocks import ResidualBlock, non_finite_message
from agflow.pruning.streams import Streams, run_to_reader, stream_before_reader

# Share of the stream's error that a reader is fitted to remove. Both ends do worse: with 0 errors
# add up, with 1 the kept units are spent on errors that they cannot predict. From 0.5 to 0.7 it is
# flat; 0.3, and 0.3 rising to 0.7, are worse.
STREAM_SHARE = 0.5
# One image in so many chooses the penalty; with fewer images one token in so many.
HELD_OUT_EVERY = 8


def fit_reader(
    pruned: nn.Module,
    block: ResidualBlock,
    name: str,
    keep_C: torch.Tensor,
    dense_behind: list[torch.Tensor],
    streams: Streams,
    known_outputs: Mapping[str, list[torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
    """Fit the reader ``name`` of ``block`` on the streams before the block.

    For the last reader of the block, ``streams.pruned`` becomes the stream that it adds to.

    Parameters
    ----------
    pruned : the reader still has all its inputs
    keep_C : inputs that it keeps, ascending int64
    dense_behind : stream of the dense network behind the reader, [B, T, D] by batch; emptied
    known_outputs : by reader of the block that was fitted before, its outputs by batch; emptied by
        the last reader

    Returns
    -------
    weight [D, K], which the penalty draws to the present one, bias [D] or None, and the inputs
    [B, T, K] by batch

    Raises
    ------
    NonFiniteError
        The inputs or the targets hold NaN or infinity.
    """
    reader = linear_at(pruned, name)
    keep_C = keep_C.to(reader.weight.device)
    kept_DK = reader.weight[:, keep_C]
    fitted, held_out = (
        Regression.empty(len(keep_C), len(kept_DK), kept_DK.device) for _ in range(2)
    )
    few = sum(len(x_BTD) for x_BTD in streams.pruned) < HELD_OUT_EVERY
    first, inputs, last = 0, [], name == block.readers[-1]
    for i, x_BTD in enumerate(streams.pruned):
        outputs = {earlier: batches[i] for earlier, batches in known_outputs.items()}
        calls = run_to_reader(
            pruned, block, name, x_BTD, streams.arguments[i], known_outputs=outputs
        )
        before_BTD = stream_before_reader(block, name, x_BTD, calls)
        y_BTK, missing_BTD = _kept_and_missing(
            reader, block, name, keep_C, calls.pop(name), before_BTD, dense_behind.pop(0)
        )
        images, tokens = x_BTD.shape[:2]
        weight_BT = block.weights[name].expand(images, tokens)
        held_out_BT = held_out_rows(first, images, tokens, few).to(x_BTD.device)
        for sums, rows_BT in ((fitted, ~held_out_BT), (held_out, held_out_BT)):
            sums.add(y_BTK[rows_BT], missing_BTD[rows_BT], weight_BT[rows_BT])
        first += images
        inputs.append(y_BTK)
        if last:
            streams.pruned[i] = before_BTD
            for batches in known_outputs.values():  # they are in the stream now
                batches[i] = before_BTD.new_empty(0)
    total = fitted + held_out
    if not total.is_finite():
        raise NonFiniteError(non_finite_message(name))
    intercept = reader.bias is not None
    change_DK, change_D = total.solve(best_penalty(fitted, held_out, intercept), intercept)
    weight_DK = (kept_DK + change_DK).to(kept_DK)
    return weight_DK, (reader.bias + change_D).to(reader.bias) if intercept else None, inputs


def _kept_and_missing(
    reader: nn.Linear,
    block: ResidualBlock,
    name: str,
    keep_C: torch.Tensor,
    call: tuple[torch.Tensor, torch.Tensor],
    before_BTD: torch.Tensor,
    dense_behind_BTD: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The reader's kept inputs [B, T, K], and what they lack of the target [B, T, D].

    Parameters
    ----------
    call : the reader's input and output
    before_BTD : the stream that the output is added to
    """
    (y_BTC, o_BTD), scale_D = call, block.scales[name]
    # Rows of channels are gathered several times as fast as those of a map of rows.
    y_BTK = y_BTC.flatten(0, 1).index_select(1, keep_C).unflatten(0, y_BTC.shape[:2])
    target_BTD = o_BTD
    if block.corrects[name]:
        gap_BTD = dense_behind_BTD - before_BTD - scale_D * o_BTD
        target_BTD = o_BTD + STREAM_SHARE * torch.where(scale_D == 0, 0, gap_BTD / scale_D)
    kept_BTD = nn.functional.linear(y_BTK, reader.weight[:, keep_C], reader.bias)
    return y_BTK, target_BTD - kept_BTD


def held_out_rows(first: int, images: int, tokens: int, few: bool) -> torch.Tensor:
    """Mark the rows [B, T] that choose the penalty instead of being fitted.

    Whole images are held out, because the rows of one image are alike; single tokens with few
    images.
    """
    number_BT = (
        first
        + torch.arange(images)[:, None]
        + (torch.arange(tokens) if few else torch.zeros(tokens, dtype=torch.int64))
    )
    return number_BT % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
