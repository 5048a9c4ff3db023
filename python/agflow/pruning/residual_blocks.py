"""Find the residual blocks of a model, and the scale and token weights of each reader in them.

A reader is a linear layer that reads prunable units and adds its output to the residual stream.

Shape suffixes: B images, T tokens, K classes, D channels of the residual stream, R = B * T rows,
L readers of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from agflow._utils.devices import first_parameter
from agflow._utils.hooks import temporary_hooks
from agflow.calibration.loss import hidden_loss
from agflow.errors import InvalidValueError, NonFiniteError
from agflow.models import Head, features_of, logits_of
from agflow.models.classifier import watched
from agflow.pruning.hooks import Calls, recorded_calls

SCALE_TOLERANCE = 1e-3  # of the norm of what a block adds to the stream
# Of the norm of the stream: a branch that adds less cannot take back the stream's error. It would
# need outputs far beyond its own, for a LayerScale of 1e-6 a million times the error.
LEAST_SHARE = 1e-3

_NEEDS = "compensate='ridge' reconstructs layer after layer"
_CURE = "use compensate='ridge_at_once'"


@dataclass(frozen=True)
class ResidualBlock:
    """A module that adds the scaled outputs of its readers to the residual stream.

    Attributes
    ----------
    name : of the module
    readers : their names, in forward order
    scales : by reader, the factor γ [D] of its output in the sum (1, or a LayerScale)
    weights : by reader, the weight of each token [T] in its least-squares fit; mean 1
    branches : by reader, the outermost module of the block that returns just the reader's output
    corrects : by reader, whether it adds enough to the stream to take back the stream's error
    """

    name: str
    readers: tuple[str, ...]
    scales: Mapping[str, torch.Tensor]
    weights: Mapping[str, torch.Tensor]
    branches: Mapping[str, str]
    corrects: Mapping[str, bool]


@dataclass(frozen=True)
class _BlockRun:
    """One call of a block: its name, the residual stream around it [B, T, D], all else it took."""

    name: str
    before_BTD: torch.Tensor
    after_BTD: torch.Tensor
    arguments: tuple[tuple, dict[str, Any]]


def find_residual_blocks(
    model: nn.Module,
    readers: Sequence[str],
    sample: torch.Tensor,
    scales: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> list[ResidualBlock]:
    """Find the blocks that hold the readers, and check them on a forward pass over ``sample``.

    A block is the innermost item of an nn.ModuleList or nn.Sequential around the module that holds
    a reader. Each block must run once, on the output of the block before it, and return its input
    plus its readers' outputs, each channel of which may be scaled.

    Parameters
    ----------
    readers : names of nn.Linear modules, in forward order
    sample : images [B, C, H, W]
    scales : by reader, the factor [D] of its output that is known
        (:meth:`agflow.models.Adapter.output_scales`); others are solved for

    Raises
    ------
    InvalidValueError
        The model is no such sequence of blocks.
    NonFiniteError
        A block returned NaN or infinity.

    Examples
    --------
    >>> import torch
    >>> from timm.models.vision_transformer import VisionTransformer
    >>> from agflow.models import adapter_for
    >>> from agflow.pruning.residual_blocks import find_residual_blocks
    >>> from agflow.pruning.sequential import readers_of
    >>> model = VisionTransformer(img_size=32, embed_dim=48, depth=2, num_heads=4).eval()
    >>> readers = readers_of(adapter_for(model).layers(model))
    >>> for block in find_residual_blocks(model, readers, torch.randn(2, 3, 32, 32)):
    ...     print(block.name, block.readers)
    blocks.0 ('blocks.0.attn.proj', 'blocks.0.mlp.fc2')
    blocks.1 ('blocks.1.attn.proj', 'blocks.1.mlp.fc2')
    """
    readers_in: dict[str, list[str]] = {}
    for reader in readers:
        readers_in.setdefault(_enclosing_block(model, reader), []).append(reader)
    runs, output, head = _run_blocks(model, list(readers_in), sample)
    _check_sequence(list(readers_in), runs)
    direct = _gradients_behind(_loss(output, sample, head), runs)
    blocks, gradient_BTD = [], torch.zeros_like(runs[-1].after_BTD)
    for run, direct_BTD in zip(reversed(runs), reversed(direct), strict=True):
        if direct_BTD is not None:
            gradient_BTD = gradient_BTD + direct_BTD
        block, gradient_BTD = _residual_block(
            model, run, readers_in[run.name], gradient_BTD, scales
        )
        blocks.append(block)
    return blocks[::-1]


def stream_of(output: Any) -> torch.Tensor:
    """Return the residual stream in a block's output, which may be a tuple that begins with it."""
    return output[0] if isinstance(output, tuple) else output


def non_finite_message(name: str) -> str:
    """Return the message of the error that the activations of a module are not finite."""
    return (
        f"{name}: the activations hold NaN or infinity, so the removed units cannot be "
        "compensated for; check the images and the weights"
    )


def _enclosing_block(model: nn.Module, reader: str) -> str:
    name = reader.rpartition(".")[0]
    while name:
        parent = name.rpartition(".")[0]
        if isinstance(model.get_submodule(parent), (nn.ModuleList, nn.Sequential)):
            return name
        name = parent
    raise InvalidValueError(
        f"{_NEEDS}, and no item of an nn.ModuleList or nn.Sequential holds layer {reader}; {_CURE}"
    )


def _run_blocks(
    model: nn.Module, blocks: list[str], sample: torch.Tensor
) -> tuple[list[_BlockRun], Any, Head]:
    """Run the model on ``sample`` with gradients, which end at the output of each block.

    So only one block at a time keeps what its gradients need.

    Returns
    -------
    the blocks in the order in which they ran, what the model put out, and its classifier
    """
    runs: list[_BlockRun] = []

    def cut_off(name: str) -> Callable:
        def hook(_: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> Any:
            after_BTD = stream_of(output).detach().requires_grad_()
            runs.append(_BlockRun(name, args[0].detach(), after_BTD, (args[1:], kwargs)))
            return (after_BTD, *output[1:]) if isinstance(output, tuple) else after_BTD

        return hook

    with (
        torch.enable_grad(),
        temporary_hooks(
            model.get_submodule(name).register_forward_hook(cut_off(name), with_kwargs=True)
            for name in blocks
        ),
    ):
        images = sample.detach().to(first_parameter(model), copy=True).requires_grad_()
        return runs, *watched(model, lambda: model(images))


def _modules_between(block: str, reader: str) -> list[str]:
    """Return the modules of the block that hold the reader, outermost first, the reader last."""
    steps = reader.removeprefix(f"{block}.").split(".")
    return [".".join([block, *steps[:depth]]) for depth in range(1, len(steps) + 1)]


def _check_sequence(blocks: list[str], runs: list[_BlockRun]) -> None:
    broken = next((run.name for run in runs if not run.after_BTD.isfinite().all()), None)
    if broken is not None:
        raise NonFiniteError(non_finite_message(broken))
    if [run.name for run in runs] != blocks or not all(
        torch.equal(first.after_BTD, second.before_BTD) for first, second in pairwise(runs)
    ):
        raise InvalidValueError(
            f"{_NEEDS}: the blocks {', '.join(blocks)} do not run once each, in this order, each "
            f"on the output of the one before; {_CURE}"
        )


@torch.enable_grad()
def _loss(output: Any, sample: torch.Tensor, head: Head) -> torch.Tensor:
    """The cross entropy of the classes that a model itself predicts; without, of its features."""
    if not head.classes:
        return hidden_loss(features_of(output), sample, seed=0)
    logits_BK = logits_of(output)
    return (logits_BK.logsumexp(1) - logits_BK.amax(1)).sum()


def _gradients_behind(
    loss: torch.Tensor, runs: Sequence[_BlockRun]
) -> tuple[torch.Tensor | None, ...]:
    """∂L/∂stream behind each block, but for what goes through later blocks; None for nothing."""
    return torch.autograd.grad(loss, [run.after_BTD for run in runs], allow_unused=True)


def _token_weight(gradient_BTD: torch.Tensor) -> torch.Tensor:
    """Weigh the tokens of a reader by what the logits depend on, [T] with mean 1.

    Half of a weight is uniform and half is |∂L/∂output|² as a share of the image's.
    """
    tiny = torch.finfo(torch.float64).tiny
    energy_BT = gradient_BTD.double().square().sum(-1)
    share_T = (energy_BT / energy_BT.sum(1, keepdim=True).clamp(min=tiny)).mean(0)
    return (0.5 + 0.5 * share_T / share_T.mean().clamp(min=tiny)).to(gradient_BTD.dtype)


def _residual_block(
    model: nn.Module,
    run: _BlockRun,
    readers: list[str],
    gradient_BTD: torch.Tensor,
    known: Mapping[str, torch.Tensor],
) -> tuple[ResidualBlock, torch.Tensor]:
    """Describe a block by a second run of it.

    Parameters
    ----------
    gradient_BTD : ∂L/∂stream behind it

    Returns
    -------
    the block, and ∂L/∂stream before it
    """
    calls, gradients, before_BTD = _run_back(model, run, readers, gradient_BTD)
    outputs = {reader: calls[reader][1].detach() for reader in readers}

    def branch_of(reader: str) -> str:
        return next(
            module
            for module in _modules_between(run.name, reader)
            if _same(calls[module][1], outputs[reader])
        )

    scales = _residual_scales(run, outputs, known)
    stream = run.before_BTD.double().norm()
    block = ResidualBlock(
        run.name,
        tuple(readers),
        scales,
        {reader: _token_weight(gradient) for reader, gradient in gradients.items()},
        {reader: branch_of(reader) for reader in readers},
        {
            reader: bool((scales[reader] * output).double().norm() >= LEAST_SHARE * stream)
            for reader, output in outputs.items()
        },
    )
    return block, before_BTD


def _run_back(
    model: nn.Module, run: _BlockRun, readers: list[str], gradient_BTD: torch.Tensor
) -> tuple[Calls, dict[str, torch.Tensor], torch.Tensor]:
    """Run a block again, and the gradients back through it.

    Returns
    -------
    the call of every module between the block and a reader, ∂L/∂output by reader, and ∂L/∂stream
    before the block
    """
    modules = [name for reader in readers for name in _modules_between(run.name, reader)]
    args, kwargs = run.arguments
    before_BTD = run.before_BTD.requires_grad_()
    with torch.enable_grad(), recorded_calls(model, dict.fromkeys(modules)) as calls:
        after_BTD = stream_of(model.get_submodule(run.name)(before_BTD, *args, **kwargs))
    outputs = [calls[reader][1] for reader in readers]
    *of_readers, of_stream = torch.autograd.grad(
        after_BTD, [*outputs, before_BTD], gradient_BTD, materialize_grads=True
    )
    return calls, dict(zip(readers, of_readers, strict=True)), of_stream


def _same(output: Any, output_BTD: torch.Tensor) -> bool:
    return isinstance(output, torch.Tensor) and torch.equal(output, output_BTD)


def _residual_scales(
    run: _BlockRun, outputs: Mapping[str, torch.Tensor], known: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Check that the block adds Σ γ * output to the stream, for known γ or those that solve it.

    A small γ cannot be solved for: what it adds is lost in the rounding of the stream.
    """
    added_DR1 = (run.after_BTD - run.before_BTD).double().flatten(0, -2).T[:, :, None]
    outputs_DRL = torch.stack([output.double().flatten(0, -2).T for output in outputs.values()], -1)
    allowed = SCALE_TOLERANCE * added_DR1.norm()

    def left_over(scales_DL1: torch.Tensor) -> torch.Tensor:
        return (outputs_DRL @ scales_DL1 - added_DR1).norm()

    if all(reader in known for reader in outputs):
        scales_DL1 = torch.stack([known[reader].double() for reader in outputs], -1)[:, :, None]
        rounding = torch.finfo(run.after_BTD.dtype).eps * run.after_BTD.double().norm()
        if left_over(scales_DL1) <= allowed + len(outputs) * rounding:
            return {reader: known[reader].to(run.after_BTD) for reader in outputs}
    scales_DL1 = _solved_scales(outputs_DRL, added_DR1)
    if not left_over(scales_DL1) <= allowed:
        raise InvalidValueError(
            f"{_NEEDS}, and {run.name} does not give its input plus its readers' outputs "
            f"({', '.join(outputs)}), or so little of them that it is lost in rounding; {_CURE}"
        )
    return {reader: scales_DL1[:, i, 0].to(run.after_BTD) for i, reader in enumerate(outputs)}


def _solved_scales(outputs_DRL: torch.Tensor, added_DR1: torch.Tensor) -> torch.Tensor:
    """Solve added = Σ γ * output for the γ [D, L, 1] of every reader, channel by channel."""
    gram_DLL = outputs_DRL.mT @ outputs_DRL
    tiny = torch.finfo(torch.float64).tiny
    return torch.linalg.solve(
        gram_DLL
        + 1e-12
        * gram_DLL.diagonal(dim1=1, dim2=2).mean(1)[:, None, None].clamp(min=tiny)
        * torch.eye(outputs_DRL.shape[-1], dtype=torch.float64, device=gram_DLL.device),
        outputs_DRL.mT @ added_DR1,
    )
