"""The fold in sequence: each reader from the first cut on is fitted to the network as it is with the readers before it cut.

Removed units leave an error in the residual stream, and the blocks behind it read that error. In the order in which the
blocks run, a reader gets the weights that predict, from the kept units of the already cut network, a
target half its own uncut output and half what would bring the stream back to the uncut network's:

    target = o + (s_uncut - s) / (2 γ),    o the reader's output before its units go, s the stream with o added

A reader that loses nothing can be given, too, with all its inputs: it takes back what it can of the error before it.
(DeiT-Tiny, MLPs cut by 75 %, with and without the attention's projections fitted along. 256 images of ten classes: KL
divergence from the uncut model 0.555 and 0.610 on 400 others, top-1 73.1 and 72.8 % on 800, which is no difference.
Classes never seen, 250 images to fit and 250 to test, either way round: top-1 34.6 and 33.2 %.)
Tokens weigh half alike and half as the logits depend on them: behind the last block a class token is all that counts.

γ is what the block multiplies the reader's output by before it adds it to the stream (1, or a LayerScale).
The cut network may have lost branches and channels of the stream before; it is then compared on the channels left.

Shape suffixes: B images, T tokens, C channels before the cut, K kept channels, D channels of the stream and of readers' outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from agflow._utils.modes import preserve_training_mode
from agflow._utils.progress import progress_bar
from agflow.errors import InvalidValueError, NonFiniteError
from agflow.models import Adapter, PrunableLayer, logits_of
from agflow.pruning.regression import Regression, best_penalty

# How much of the stream's error a reader is asked to take back. Both ends do worse: with 0 errors add up, with 1 the kept
# units are spent on errors that they cannot predict. From 0.5 to 0.7 it is flat; 0.3, and 0.3 rising to 0.7, are worse.
STREAM_SHARE = 0.5
HELD_OUT_EVERY = (
    8  # one image in so many chooses the penalty; with fewer images one token in so many does
)
SCALE_TOLERANCE = 1e-3

Apply = Callable[[str, torch.Tensor, "torch.Tensor | None"], None]
"""Takes (reader, weight_DK, bias_D): cuts what the reader reads and gives it these."""


@dataclass(frozen=True)
class Block:
    """A module of the row of blocks with the readers in it.

    Attributes
    ----------
    name : of the module
    readers : their names, in forward order
    scales : by reader, γ [D]
    weights : by reader, what each token [T] weighs in its fit; mean 1
    branches : by reader, the outermost module in the block that gives just what the reader gives
    """

    name: str
    readers: tuple[str, ...]
    scales: Mapping[str, torch.Tensor]
    weights: Mapping[str, torch.Tensor]
    branches: Mapping[str, str]


@dataclass
class Streams:
    """The residual stream of every calibration image before a block, batch by batch, and the block's other arguments.

    Attributes
    ----------
    dense, cut : [B, T, D] each, of the uncut network and of the one cut so far, of the channels that this one has
    arguments : what a block is called with besides the stream, by batch
    """

    dense: list[torch.Tensor]
    cut: list[torch.Tensor]
    arguments: list[tuple[tuple, dict]]


def reconstruct_sequentially(
    adapter: Adapter,
    dense: nn.Module,
    light: nn.Module,
    cuts: Mapping[str, torch.Tensor],
    sample: torch.Tensor,
    loader: Iterable,
    apply: Apply,
    *,
    kept_stream_D: torch.Tensor | None = None,
) -> None:
    """Cut ``light``, a copy of ``dense`` in evaluation mode, reader by reader through ``apply``.

    The images go through the blocks before the first cut once, in either network. From there on their residual streams
    are held, two between blocks and a third inside them (images * T * D values of the model's type each), and what the
    reader being fitted reads (images * T * K). Everything else is streamed batch by batch. Each block runs once in the
    uncut network and once in the cut one: up to a reader, and on from what this gives since it is fitted. (Where an
    attention module gives more than its reader's output, as in Transformers and torchvision, it runs once more.)

    Parameters
    ----------
    light : has every reader's inputs yet; branches may be gone with their readers, and channels of the stream
    cuts : by reader that is to be fitted, the input channels it keeps, ascending int64
    sample : some images [B, C, H, W], on which the row of blocks is recognised and the tokens are weighed
    loader : batches of (images [B, C, H, W], anything)
    kept_stream_D : channels of the stream that ``light`` has, ascending int64; all when None

    Raises
    ------
    InvalidValueError
        The model is not a row of blocks that add their readers' outputs to a stream.
    NonFiniteError
        A reader's activations hold NaN or infinity.
    """
    with (
        torch.no_grad(),
        preserve_training_mode(dense),
        adapter.watchable(dense),
        adapter.watchable(light),
    ):
        dense.eval()
        blocks = row_of_blocks(dense, readers_of(adapter.layers(dense)), sample)
        losing = [
            i for i, block in enumerate(blocks) if any(reader in cuts for reader in block.readers)
        ]
        if not losing:
            return
        kept_D = (
            slice(None)
            if kept_stream_D is None
            else kept_stream_D.to(next(dense.parameters()).device)
        )
        streams = _enter(dense, light, blocks[losing[0]].name, loader)
        for block in progress_bar(blocks[losing[0] : losing[-1] + 1], "repair"):
            _cross(dense, light, block, cuts, streams, apply, kept_D)


def readers_of(layers: Iterable[PrunableLayer]) -> list[str]:
    """Names of the layers' readers, each once, in the layers' order."""
    return list(dict.fromkeys(layer.reader for layer in layers if layer.reader))


def row_of_blocks(model: nn.Module, readers: Sequence[str], sample: torch.Tensor) -> list[Block]:
    """The blocks that hold the readers, checked on a run over ``sample``.

    A block is the innermost item of an nn.ModuleList or nn.Sequential around the module that holds a reader. Each must run once, take the output
    of the one before, and give its input plus its readers' outputs, every channel of which may be scaled.

    Raises
    ------
    InvalidValueError
        One of that does not hold.
    """
    inside: dict[str, list[str]] = {}
    for reader in readers:
        inside.setdefault(_block_around(model, reader), []).append(reader)
    runs: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def record(name: str) -> Callable:
        return lambda _, inputs, output: runs.append(
            (name, inputs[0].detach(), _stream(output).detach())
        )

    around = [
        module for name in inside for reader in inside[name] for module in _between(name, reader)
    ]
    with (
        torch.enable_grad(),
        _watching(model, dict.fromkeys(around)) as seen,
        _hooked([model.get_submodule(name).register_forward_hook(record(name)) for name in inside]),
    ):
        logits_BK = logits_of(
            model(sample.detach().to(next(model.parameters()), copy=True).requires_grad_())
        )
    broken = next((name for name, _, out_BTD in runs if not out_BTD.isfinite().all()), None)
    if broken is not None:
        raise NonFiniteError(_not_finite(broken))
    if [name for name, _, _ in runs] != list(inside) or not all(
        torch.equal(before[2], after[1]) for before, after in pairwise(runs)
    ):
        raise InvalidValueError(
            f"{_ASKED}: the blocks {', '.join(inside)} do not run once each, in this order, each on the output of the one before; {_CURE}"
        )
    outputs = {reader: seen[reader][1] for reader in readers}
    weights = _token_weights(logits_BK, outputs)
    blocks = []
    for name, into_BTD, out_BTD in runs:
        scales = _scales(
            name, into_BTD, out_BTD, {reader: outputs[reader].detach() for reader in inside[name]}
        )
        branches = {
            reader: next(
                module
                for module in _between(name, reader)
                if _same(seen[module][1], outputs[reader])
            )
            for reader in inside[name]
        }
        blocks.append(
            Block(
                name,
                tuple(inside[name]),
                scales,
                {reader: weights[reader] for reader in inside[name]},
                branches,
            )
        )
    return blocks


def _between(block: str, reader: str) -> list[str]:
    """The modules inside the block around the reader, outermost first, itself last."""
    steps = reader.removeprefix(f"{block}.").split(".")
    return [".".join([block, *steps[:depth]]) for depth in range(1, len(steps) + 1)]


def _same(output: Any, output_BTD: torch.Tensor) -> bool:
    return isinstance(output, torch.Tensor) and torch.equal(output, output_BTD)


def _token_weights(
    logits_BK: torch.Tensor, outputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Half uniform and half |∂L/∂output|² as a share of the image's, L the cross entropy of the class the model itself names."""
    with torch.enable_grad():
        loss = (logits_BK.logsumexp(1) - logits_BK.amax(1)).sum()
    gradients = torch.autograd.grad(loss, list(outputs.values()), materialize_grads=True)
    weights = {}
    for name, gradient_BTD in zip(outputs, gradients, strict=True):
        energy_BT = gradient_BTD.double().square().sum(-1)
        share_T = (
            energy_BT / energy_BT.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        ).mean(0)
        weights[name] = (
            0.5 + 0.5 * share_T / share_T.mean().clamp(min=torch.finfo(torch.float64).tiny)
        ).to(logits_BK.dtype)
    return weights


def _not_finite(name: str) -> str:
    return f"{name}: the activations hold NaN or infinity, so the cut cannot be repaired; check the images and the weights"


_ASKED = "compensate='ridge' folds block after block"
_CURE = "use compensate='ridge_at_once'"


def _block_around(model: nn.Module, reader: str) -> str:
    name = reader.rpartition(".")[0]
    while name:
        parent = name.rpartition(".")[0]
        if isinstance(model.get_submodule(parent), (nn.ModuleList, nn.Sequential)):
            return name
        name = parent
    raise InvalidValueError(
        f"{_ASKED}, and no item of an nn.ModuleList or nn.Sequential holds layer {reader}; {_CURE}"
    )


def _scales(
    name: str, into_BTD: torch.Tensor, out_BTD: torch.Tensor, outputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """γ of every reader of a block: out - into = Σ γ * output, solved channel by channel by least squares."""
    added_DR1 = (out_BTD - into_BTD).double().flatten(0, -2).T[:, :, None]
    outputs_DRL = torch.stack([output.double().flatten(0, -2).T for output in outputs.values()], -1)
    gram_DLL = outputs_DRL.mT @ outputs_DRL
    tiny = torch.finfo(torch.float64).tiny
    scales_DL1 = torch.linalg.solve(
        gram_DLL
        + 1e-12
        * gram_DLL.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=tiny)
        * torch.eye(len(outputs), dtype=torch.float64, device=gram_DLL.device),
        outputs_DRL.mT @ added_DR1,
    )
    if not (outputs_DRL @ scales_DL1 - added_DR1).norm() <= SCALE_TOLERANCE * added_DR1.norm():
        raise InvalidValueError(
            f"{_ASKED}, and {name} does not give its input plus its readers' outputs ({', '.join(outputs)}); {_CURE}"
        )
    return {reader: scales_DL1[:, i, 0].to(out_BTD) for i, reader in enumerate(outputs)}


class _Reached(Exception):
    """The model was run as far as it was needed."""


def _enter(dense: nn.Module, light: nn.Module, block: str, loader: Iterable) -> Streams:
    """The streams before ``block``; the models are not run further."""
    streams = Streams([], [], [])

    def stop_at(held: list[torch.Tensor]) -> Callable:
        def stop(_, args: tuple, kwargs: dict[str, Any]) -> None:
            held.append(args[0])
            if held is streams.dense:
                streams.arguments.append((args[1:], kwargs))
            raise _Reached

        return stop

    device = next(dense.parameters()).device
    networks = {dense: streams.dense, light: streams.cut}
    with _hooked(
        [
            model.get_submodule(block).register_forward_pre_hook(stop_at(held), with_kwargs=True)
            for model, held in networks.items()
        ]
    ):
        for images, *_ in loader:
            for model in networks:
                with suppress(_Reached):
                    model(images.to(device))
    return streams


def _cross(
    dense: nn.Module,
    light: nn.Module,
    block: Block,
    cuts: Mapping[str, torch.Tensor],
    streams: Streams,
    apply: Apply,
    kept_D: torch.Tensor | slice,
) -> None:
    """Fit and cut the block's readers one after the other, and take both streams across it."""
    present = set(dict(light.named_modules()))
    left = _left_of(block, present, kept_D)
    losing = [reader for reader in left.readers if reader in cuts]
    behind: dict[str, list[torch.Tensor]] = {
        reader: [] for reader in losing
    }  # the uncut stream right behind each reader
    for i, x_BTD in enumerate(streams.dense):
        out_BTD, seen = _run(dense, block, x_BTD, streams.arguments[i])
        for reader in losing:
            last = reader == block.readers[-1]
            behind[reader].append(
                (
                    out_BTD
                    if last
                    else _before(block, reader, x_BTD, seen)
                    + block.scales[reader] * seen[reader][1]
                )[..., kept_D]
            )
        streams.dense[i] = out_BTD
    given: dict[
        str, list[torch.Tensor]
    ] = {}  # by reader of the block fitted so far, its outputs since
    for reader in losing:
        *fit, read = _refit(light, left, reader, cuts[reader], behind.pop(reader), streams, given)
        apply(reader, *fit)
        given[reader] = [nn.functional.linear(read.pop(0), *fit) for _ in streams.cut]
    last = left.readers[-1]
    for i, x_BTD in enumerate(streams.cut):
        if (
            last in given
        ):  # it was fitted, so the stream has been taken up to it, and nothing of the block follows
            streams.cut[i] = x_BTD + left.scales[last] * given[last][i]
        else:
            streams.cut[i], _ = _run(light, left, x_BTD, streams.arguments[i], given=_at(given, i))


def _at(given: Mapping[str, list[torch.Tensor]], i: int) -> dict[str, torch.Tensor]:
    return {reader: outputs[i] for reader, outputs in given.items()}


def _left_of(block: Block, present: Collection[str], kept_D: torch.Tensor | slice) -> Block:
    """The block as it is in the cut network: without readers that are gone, and on the channels left."""
    return replace(
        block,
        readers=tuple(reader for reader in block.readers if reader in present),
        scales={reader: scale_D[kept_D] for reader, scale_D in block.scales.items()},
    )


def _refit(
    light: nn.Module,
    block: Block,
    name: str,
    keep_C: torch.Tensor,
    behind: list[torch.Tensor],
    streams: Streams,
    given: Mapping[str, list[torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
    """Weight [D, K] and bias [D] of the reader, which the penalty draws to those it has now, and what it read, [B, T, K] by batch.

    For the block's last reader ``streams.cut`` is taken up to what it adds to.
    """
    reader, scale_D = light.get_submodule(name), block.scales[name]
    keep_C = keep_C.to(reader.weight.device)
    kept_DK = reader.weight[:, keep_C]
    fitted, held_out = (
        Regression.empty(len(keep_C), len(kept_DK), kept_DK.device) for _ in range(2)
    )
    few = sum(len(x_BTD) for x_BTD in streams.cut) < HELD_OUT_EVERY
    first, read = 0, []
    for i, x_BTD in enumerate(streams.cut):
        _, seen = _run(light, block, x_BTD, streams.arguments[i], until=name, given=_at(given, i))
        y_BTC, o_BTD = seen[name]
        y_BTK, before_BTD = y_BTC[..., keep_C], _before(block, name, x_BTD, seen)
        gap_BTD = behind[i] - before_BTD - scale_D * o_BTD
        target_BTD = o_BTD + STREAM_SHARE * torch.where(scale_D == 0, 0, gap_BTD / scale_D)
        missing_BTD = target_BTD - nn.functional.linear(y_BTK, kept_DK, reader.bias)
        weight_BT = block.weights[name].expand(y_BTK.shape[:2])
        chooses_BT = _chooses(first, *x_BTD.shape[:2], few).to(x_BTD.device)
        for sums, rows_BT in ((fitted, ~chooses_BT), (held_out, chooses_BT)):
            sums.add(y_BTK[rows_BT], missing_BTD[rows_BT], weight_BT[rows_BT])
        first += len(x_BTD)
        read.append(y_BTK)
        if name == block.readers[-1]:
            streams.cut[i] = before_BTD
    total = fitted + held_out
    if not (total.sum_KK.isfinite().all() and total.sum_OK.isfinite().all()):
        raise NonFiniteError(_not_finite(name))
    change_DK, change_D = total.solve(
        best_penalty(fitted, held_out, reader.bias is not None), reader.bias is not None
    )
    return (
        (kept_DK + change_DK).to(kept_DK),
        None if reader.bias is None else (reader.bias + change_D).to(reader.bias),
        read,
    )


def _chooses(first: int, images: int, tokens: int, few: bool) -> torch.Tensor:
    """Which rows [B, T] choose the penalty instead of being fitted: those of whole images, for rows of an image are alike."""
    number_BT = (
        first
        + torch.arange(images)[:, None]
        + (torch.arange(tokens) if few else torch.zeros(tokens, dtype=torch.int64))
    )
    return number_BT % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def _before(
    block: Block,
    reader: str,
    x_BTD: torch.Tensor,
    seen: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    """The stream that a reader adds to: what came into the block plus what the readers before it gave."""
    for added in block.readers[: block.readers.index(reader)]:
        x_BTD = x_BTD + block.scales[added] * seen[added][1]
    return x_BTD


def _run(
    model: nn.Module,
    block: Block,
    x_BTD: torch.Tensor,
    arguments: tuple[tuple, dict],
    *,
    until: str | None = None,
    given: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> tuple[torch.Tensor | None, dict]:
    """The stream behind the block, and what its readers read and gave, by their names.

    It is run no further than the reader ``until``. The branches of readers whose output is ``given`` are not run at all.
    """

    def stop(*_) -> None:
        raise _Reached

    args, kwargs = arguments
    stops = [] if until is None else [until]
    branches = {block.branches[reader]: output_BTD for reader, output_BTD in given.items()}
    with (
        _watching(model, block.readers) as seen,
        _standing_in(model, branches),
        suppress(_Reached),
        _hooked([model.get_submodule(reader).register_forward_hook(stop) for reader in stops]),
    ):
        seen.update({reader: (None, output_BTD) for reader, output_BTD in given.items()})
        return _stream(model.get_submodule(block.name)(x_BTD, *args, **kwargs)), seen
    return None, seen


@contextmanager
def _standing_in(model: nn.Module, outputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """While open, the modules of these names do nothing but give these outputs."""
    modules = {model.get_submodule(name): output_BTD for name, output_BTD in outputs.items()}
    for module, output_BTD in modules.items():
        module.forward = lambda *_, output_BTD=output_BTD, **__: (
            output_BTD
        )  # on the instance, where it hides the class's
    try:
        yield
    finally:
        for module in modules:
            del module.forward


@contextmanager
def _watching(
    model: nn.Module, readers: Iterable[str]
) -> Iterator[dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """While open, what each reader last read and gave, by its name."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    with _hooked(
        [
            model.get_submodule(reader).register_forward_hook(
                lambda _, inputs, output, name=reader: seen.__setitem__(name, (inputs[0], output))
            )
            for reader in readers
        ]
    ):
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
