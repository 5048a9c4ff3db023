"""The fold in sequence: the reader of each cut layer is fitted to the network as it is with the layers before it cut.

Removed units leave an error in the residual stream, and the blocks behind it read that error. In the order in which the
blocks run, the reader of a cut layer gets the weights that predict, from the kept units of the already cut network, a
target half its own uncut output and half what would bring the stream back to the uncut network's:

    target = o + (s_uncut - s) / (2 γ),    o the reader's output before its units go, s the stream with o added

Tokens weigh half alike and half as the logits depend on them: behind the last block a class token is all that counts.

γ is what the block multiplies the reader's output by before it adds it to the stream (1, or a LayerScale).

Shape suffixes: B images, T tokens, C channels before the cut, K kept channels, D channels of the stream and of readers' outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from agflow.errors import InvalidValueError, NonFiniteError
from agflow.models import Adapter, PrunableLayer, logits_of
from agflow.models.adapter import channels_of
from agflow.modes import modes_kept
from agflow.regression import Regression, best_penalty

# How much of the stream's error a reader is asked to take back. Both ends do worse: with 0 errors add up, with 1 the kept
# units are spent on errors that they cannot predict.
STREAM_SHARE = 0.5
HELD_OUT_EVERY = 8  # one image in so many chooses the penalty; with fewer images one token in so many does
SCALE_TOLERANCE = 1e-3

Apply = Callable[[PrunableLayer, torch.Tensor, torch.Tensor, "torch.Tensor | None"], None]
"""Takes (layer, keep_U, weight_DK, bias_D): cuts the layer and gives its reader these."""


@dataclass(frozen=True)
class Block:
    """A module of the row of blocks with its layers.

    Attributes
    ----------
    name : of the module
    layers : in forward order
    scales : by layer name, γ [D] of its reader
    weights : by layer name, what each token [T] weighs in the fit of its reader; mean 1
    """

    name: str
    layers: tuple[PrunableLayer, ...]
    scales: Mapping[str, torch.Tensor]
    weights: Mapping[str, torch.Tensor]


@dataclass
class Streams:
    """The residual stream of every calibration image before a block, batch by batch, and the block's other arguments.

    Attributes
    ----------
    dense, cut : [B, T, D] each, of the uncut network and of the one with the layers so far cut
    arguments : what a block is called with besides the stream, by batch
    """

    dense: list[torch.Tensor]
    cut: list[torch.Tensor]
    arguments: list[tuple[tuple, dict]]


def fold_in_sequence(adapter: Adapter, dense: nn.Module, light: nn.Module, cuts: Mapping[str, torch.Tensor], sample: torch.Tensor,
                     loader: Iterable, apply: Apply, *, progress: bool = True) -> None:
    """Cut ``light``, an uncut copy of ``dense`` in evaluation mode, layer by layer through ``apply``.

    The images go through the blocks before the first cut layer once. From there on their residual streams are held, two
    between blocks and one more while heads are fitted: images * T * D values of the model's type each. Everything else
    is streamed batch by batch. Each block runs once in the uncut network, and in the cut one up to the reader of each layer
    that it loses units of; what the last reader of a block read is held until it is fitted (images * T * K values), so that
    only a block whose last reader is left as it is runs once more.

    Parameters
    ----------
    cuts : kept units, ascending int64, of each layer that loses some
    sample : some images [B, C, H, W], on which the row of blocks is recognised and the tokens are weighed
    loader : batches of (images [B, C, H, W], anything)

    Raises
    ------
    InvalidValueError
        The model is not a row of blocks that add their readers' outputs to a stream.
    NonFiniteError
        A layer's activations hold NaN or infinity.
    """
    with torch.no_grad(), modes_kept(dense), adapter.watchable(dense), adapter.watchable(light):
        dense.eval()
        blocks = row_of_blocks(dense, adapter.layers(dense), sample)
        losing = [i for i, block in enumerate(blocks) if any(layer.name in cuts for layer in block.layers)]
        if not losing:
            return
        streams = _enter(dense, blocks[losing[0]].name, loader)
        for block in tqdm(blocks[losing[0]:losing[-1] + 1], desc="repair", disable=None if progress else True, leave=False):
            _cross(dense, light, block, cuts, streams, apply)


def row_of_blocks(model: nn.Module, layers: list[PrunableLayer], sample: torch.Tensor) -> list[Block]:
    """The blocks that hold the layers, checked on a run over ``sample``.

    A block is the innermost item of an nn.ModuleList or nn.Sequential around a layer. Each must run once, take the output
    of the one before, and give its input plus its readers' outputs, every channel of which may be scaled.

    Raises
    ------
    InvalidValueError
        One of that does not hold.
    """
    inside: dict[str, list[PrunableLayer]] = {}
    for layer in layers:
        inside.setdefault(_block_around(model, layer), []).append(layer)
    runs: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def record(name: str) -> Callable:
        return lambda _, inputs, output: runs.append((name, inputs[0].detach(), _stream(output).detach()))

    with torch.enable_grad(), _watching(model, layers) as seen, _hooked([model.get_submodule(name).register_forward_hook(record(name)) for name in inside]):
        logits_BK = logits_of(model(sample.detach().to(next(model.parameters()), copy=True).requires_grad_()))
    broken = next((name for name, _, out_BTD in runs if not out_BTD.isfinite().all()), None)
    if broken is not None:
        raise NonFiniteError(_not_finite(broken))
    if [name for name, _, _ in runs] != list(inside) or not all(torch.equal(before[2], after[1]) for before, after in pairwise(runs)):
        raise InvalidValueError(f"{_ASKED}: the blocks {', '.join(inside)} do not run once each, in this order, each on the output of the one before; {_CURE}")
    outputs = {name: output_BTD for name, (_, output_BTD) in seen.items()}
    weights = _token_weights(logits_BK, outputs)
    blocks = []
    for name, into_BTD, out_BTD in runs:
        names = [layer.name for layer in inside[name]]
        scales = _scales(name, into_BTD, out_BTD, {layer: outputs[layer].detach() for layer in names})
        blocks.append(Block(name, tuple(inside[name]), scales, {layer: weights[layer] for layer in names}))
    return blocks


def _token_weights(logits_BK: torch.Tensor, outputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half uniform and half |∂L/∂output|² as a share of the image's, L the cross entropy of the class the model itself names."""
    with torch.enable_grad():
        loss = (logits_BK.logsumexp(1) - logits_BK.amax(1)).sum()
    gradients = torch.autograd.grad(loss, list(outputs.values()), materialize_grads=True)
    weights = {}
    for name, gradient_BTD in zip(outputs, gradients, strict=True):
        energy_BT = gradient_BTD.double().square().sum(-1)
        share_T = (energy_BT / energy_BT.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)).mean(0)
        weights[name] = (0.5 + 0.5 * share_T / share_T.mean().clamp(min=torch.finfo(torch.float64).tiny)).to(logits_BK.dtype)
    return weights


def _not_finite(name: str) -> str:
    return f"{name}: the activations hold NaN or infinity, so the cut cannot be repaired; check the images and the weights"


_ASKED = "compensate='ridge' folds block after block"
_CURE = "use compensate='ridge_at_once'"


def _block_around(model: nn.Module, layer: PrunableLayer) -> str:
    name = layer.name
    while name:
        parent = name.rpartition(".")[0]
        if isinstance(model.get_submodule(parent), (nn.ModuleList, nn.Sequential)):
            return name
        name = parent
    raise InvalidValueError(f"{_ASKED}, and no item of an nn.ModuleList or nn.Sequential holds layer {layer.name}; {_CURE}")


def _scales(name: str, into_BTD: torch.Tensor, out_BTD: torch.Tensor, outputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """γ of every reader of a block: out - into = Σ γ * output, solved channel by channel by least squares."""
    added_DR1 = (out_BTD - into_BTD).double().flatten(0, -2).T[:, :, None]
    outputs_DRL = torch.stack([output.double().flatten(0, -2).T for output in outputs.values()], -1)
    gram_DLL = outputs_DRL.mT @ outputs_DRL
    tiny = torch.finfo(torch.float64).tiny
    scales_DL1 = torch.linalg.solve(gram_DLL + 1e-12 * gram_DLL.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=tiny)
                                    * torch.eye(len(outputs), dtype=torch.float64, device=gram_DLL.device), outputs_DRL.mT @ added_DR1)
    if not (outputs_DRL @ scales_DL1 - added_DR1).norm() <= SCALE_TOLERANCE * added_DR1.norm():
        raise InvalidValueError(f"{_ASKED}, and {name} does not give its input plus its readers' outputs ({', '.join(outputs)}); {_CURE}")
    return {layer: scales_DL1[:, i, 0].to(out_BTD) for i, layer in enumerate(outputs)}


def _enter(model: nn.Module, block: str, loader: Iterable) -> Streams:
    """The streams before ``block``; the model is not run further."""
    streams = Streams([], [], [])

    def stop(_, args: tuple, kwargs: dict[str, Any]) -> None:
        streams.dense.append(args[0])
        streams.arguments.append((args[1:], kwargs))
        raise _Reached

    device = next(model.parameters()).device
    with _hooked([model.get_submodule(block).register_forward_pre_hook(stop, with_kwargs=True)]):
        for images, *_ in loader:
            with suppress(_Reached):
                model(images.to(device))
    streams.cut = list(streams.dense)
    return streams


def _cross(dense: nn.Module, light: nn.Module, block: Block, cuts: Mapping[str, torch.Tensor], streams: Streams, apply: Apply) -> None:
    """Fit and cut the block's layers one after the other, and take both streams across it."""
    losing = [layer for layer in block.layers if layer.name in cuts]
    behind: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in losing}  # the uncut stream right behind each layer
    for i, x_BTD in enumerate(streams.dense):
        out_BTD, seen = _run(dense, block, x_BTD, streams.arguments[i])
        for layer in losing:
            last = layer is block.layers[-1]
            behind[layer.name].append(out_BTD if last else _before(block, layer, x_BTD, seen) + block.scales[layer.name] * seen[layer.name][1])
        streams.dense[i] = out_BTD
    crossed = False
    for layer in losing:
        keep_C = channels_of(cuts[layer.name], layer.unit_width)
        last = layer is block.layers[-1]
        *fit, read = _refit(light, block, layer, keep_C, behind.pop(layer.name), streams, hold=last)
        apply(layer, cuts[layer.name], *fit)
        for i, y_BTK in enumerate(read):  # nothing of the block follows its last reader, so what went into it suffices
            streams.cut[i] = streams.cut[i] + block.scales[layer.name] * nn.functional.linear(y_BTK, *fit)
        crossed = last
    if not crossed:
        for i, x_BTD in enumerate(streams.cut):
            streams.cut[i], _ = _run(light, block, x_BTD, streams.arguments[i])


def _refit(light: nn.Module, block: Block, layer: PrunableLayer, keep_C: torch.Tensor, behind: list[torch.Tensor], streams: Streams,
           *, hold: bool) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
    """Weight [D, K] and bias [D] of the layer's reader; the penalty draws them to those it has now.

    Told to ``hold``, it also gives what the reader read, [B, T, K] by batch, and leaves the stream right before the
    reader's output is added in ``streams.cut``.
    """
    reader, scale_D = light.get_submodule(layer.reader), block.scales[layer.name]
    keep_C = keep_C.to(reader.weight.device)
    kept_DK = reader.weight[:, keep_C]
    fitted, held_out = (Regression.empty(len(keep_C), len(kept_DK), kept_DK.device) for _ in range(2))
    few = sum(len(x_BTD) for x_BTD in streams.cut) < HELD_OUT_EVERY
    first, read = 0, []
    for i, x_BTD in enumerate(streams.cut):
        _, seen = _run(light, block, x_BTD, streams.arguments[i], until=layer)
        y_BTC, o_BTD = seen[layer.name]
        y_BTK = y_BTC[..., keep_C]
        before_BTD = _before(block, layer, x_BTD, seen)
        gap_BTD = behind[i] - before_BTD - scale_D * o_BTD
        target_BTD = o_BTD + STREAM_SHARE * torch.where(scale_D == 0, 0, gap_BTD / scale_D)
        missing_BTD = target_BTD - nn.functional.linear(y_BTK, kept_DK, reader.bias)
        weight_BT = block.weights[layer.name].expand(y_BTK.shape[:2])
        chooses_BT = _chooses(first, *x_BTD.shape[:2], few).to(x_BTD.device)
        for sums, rows_BT in ((fitted, ~chooses_BT), (held_out, chooses_BT)):
            sums.add(y_BTK[rows_BT], missing_BTD[rows_BT], weight_BT[rows_BT])
        first += len(x_BTD)
        if hold:
            read.append(y_BTK)
            streams.cut[i] = before_BTD
    total = fitted + held_out
    if not (total.sum_KK.isfinite().all() and total.sum_OK.isfinite().all()):
        raise NonFiniteError(_not_finite(layer.name))
    change_DK, change_D = total.solve(best_penalty(fitted, held_out, reader.bias is not None), reader.bias is not None)
    return (kept_DK + change_DK).to(kept_DK), None if reader.bias is None else (reader.bias + change_D).to(reader.bias), read


def _chooses(first: int, images: int, tokens: int, few: bool) -> torch.Tensor:
    """Which rows [B, T] choose the penalty instead of being fitted: those of whole images, for rows of an image are alike."""
    number_BT = first + torch.arange(images)[:, None] + (torch.arange(tokens) if few else torch.zeros(tokens, dtype=torch.int64))
    return number_BT % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def _before(block: Block, layer: PrunableLayer, x_BTD: torch.Tensor, seen: Mapping[str, tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """The stream that a layer's reader adds to: what came into the block plus what the readers before it gave."""
    for added in block.layers[:block.layers.index(layer)]:
        x_BTD = x_BTD + block.scales[added.name] * seen[added.name][1]
    return x_BTD


class _Reached(Exception):
    """The model was run as far as it was needed."""


def _run(model: nn.Module, block: Block, x_BTD: torch.Tensor, arguments: tuple[tuple, dict], *,
         until: PrunableLayer | None = None) -> tuple[torch.Tensor | None, dict]:
    """The stream behind the block, and what its readers read and gave, by layer name; no further than the reader of ``until``."""
    def stop(*_) -> None:
        raise _Reached

    args, kwargs = arguments
    stops = [] if until is None else [until.reader]
    with _watching(model, block.layers) as seen, _hooked([model.get_submodule(reader).register_forward_hook(stop) for reader in stops]), suppress(_Reached):
        return _stream(model.get_submodule(block.name)(x_BTD, *args, **kwargs)), seen
    return None, seen


@contextmanager
def _watching(model: nn.Module, layers: Iterable[PrunableLayer]) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """While open, what each layer's reader last read and gave, by layer name."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    with _hooked([model.get_submodule(layer.reader).register_forward_hook(
            lambda _, inputs, output, name=layer.name: seen.__setitem__(name, (inputs[0], output))) for layer in layers]):
        yield seen


@contextmanager
def _hooked(handles: Iterable) -> Iterator[None]:
    """On exit the hooks are gone."""
    handles = list(handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _stream(output: Any) -> torch.Tensor:
    """A block's output; some give a tuple that begins with it."""
    return output[0] if isinstance(output, tuple) else output
