"""Prune a traced model: masked and repaired at full size first, then cut all at once.

Shape suffixes: U kept units, S positions along an axis of a weight.
"""

# torch.fx types the arguments of a node as anything that a graph can hold.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import fx, nn

from agflow.errors import InvalidValueError
from agflow.models.channel_group import CONSUMER, ChannelGroup
from agflow.models.copying import copy_of
from agflow.models.families.origins import note_origin
from agflow.models.slicing import cut_groups, tensor_of
from agflow.models.tracing.by_graph import norms_of_kept_channels
from agflow.models.tracing.graph import exported
from agflow.models.tracing.graph_run import GraphRun
from agflow.pruning.graph_reconstruction import GraphReconstruction
from agflow.pruning.graph_targets import layer_of, target_of

BATCH_SIZE = 32  # of the exported network, and at most the loader's
Cuts = Sequence[tuple[ChannelGroup, torch.Tensor]]


def prune_by_graph(
    model: nn.Module, cuts: Cuts, batches: Iterable[torch.Tensor], compensate: str
) -> tuple[nn.Module, nn.Module]:
    """Prune and repair a traced model.

    Parameters
    ----------
    cuts : proven groups of the model, each with the units that it keeps
    batches : images on the model's device; none for ``compensate="none"``

    Returns
    -------
    the pruned model and its reference: of full size, the removed units read by nothing
    """
    # Groups inside a removed branch go with it, and branches go last.
    cuts = sorted(_outside_branches(cuts), key=lambda cut: cut[0].may_vanish)
    pruned, reference = (copy_of(model).eval() for _ in range(2))
    weights = _repaired(reference, cuts, iter(batches), compensate)
    for copy in (pruned, reference):
        _set(copy, weights)
    note_origin(pruned)
    cut_groups(pruned, cuts)
    return pruned, reference


def _repaired(
    model: nn.Module, cuts: Cuts, batches: Iterator[torch.Tensor], compensate: str
) -> dict[str, torch.Tensor]:
    """The parameters and buffers that change, at full size, by name."""
    kept = kept_positions(model, cuts)
    masked = {name: _masked(tensor, axes) for name, (tensor, axes) in kept.items()}
    if compensate == "none":
        return masked
    first = next(batches)
    run = GraphRun(exported(model, first[:BATCH_SIZE]))
    fitted = {
        name: axes[1]
        for name, (_, axes) in kept.items()
        if 1 in axes and set(axes) <= {0, 1} and layer_of(run, name) is not None
    }
    if compensate == "mean":
        _check_shifts(run, fitted)
    branches = [group for group, keep_U in cuts if not len(keep_U)]
    removed = {run.output_of(tap.module) for group in branches for tap in group.taps}
    if compensate == "ridge":
        fitted.update(downstream(run, fitted, removed))
        fitted = {
            name: keep_C
            for name, keep_C in fitted.items()
            if not any(name.startswith(f"{group.name}.") for group in branches)
        }
    dense = run.weights_of(model)
    unfitted = {name: tensor for name, tensor in masked.items() if name not in fitted}
    rows = {name: axes[0] for name, (_, axes) in kept.items() if name in fitted and 0 in axes}
    reconstruction = GraphReconstruction(
        run, dense, unfitted, fitted, compensate, removed, norms_of_kept_channels(run, cuts), rows
    )
    return unfitted | reconstruction.fit(itertools.chain([first], batches))


def kept_positions(
    model: nn.Module, cuts: Cuts
) -> dict[str, tuple[torch.Tensor, dict[int, torch.Tensor]]]:
    """By weight that reads units of the groups, itself and the positions that stay, by axis."""
    found: dict[str, tuple[torch.Tensor, dict[int, torch.Tensor]]] = {}
    for group, keep_U in cuts:
        for member in group.of(CONSUMER):
            tensor = tensor_of(model, group, member).detach()
            size = tensor.shape[member.axis]
            stays_S = member.kept(size, group.units, keep_U)
            axes = found.setdefault(member.name, (tensor, {}))[1]
            before_S = axes.get(member.axis, stays_S)
            axes[member.axis] = before_S[torch.isin(before_S, stays_S)]
    return found


def _outside_branches(cuts: Cuts) -> list[tuple[ChannelGroup, torch.Tensor]]:
    removed = tuple(f"{group.name}." for group, keep_U in cuts if not len(keep_U))
    return [
        (group, keep_U)
        for group, keep_U in cuts
        if not len(keep_U)
        or not all(member.name.startswith(removed) for member in group.of(CONSUMER))
    ]


def downstream(
    run: GraphRun, fitted: Mapping[str, torch.Tensor], removed: Collection[fx.Node] = ()
) -> dict[str, torch.Tensor]:
    """The layers behind the first cut that lose nothing, with all their inputs.

    What they read has changed, and each can take back some of that. (ResNet-20 for CIFAR-10, middle
    channels at a quarter of their operations, 512 images: top-1 72.2 % with all convolutions
    fitted, 62.8 % with those alone that lose inputs.) The classifier stays as it is: of its rows
    there is but one an image.
    """
    changed = [*removed, *(layer_of(run, name) for name in fitted)]
    first = min((run.place[node] for node in changed), default=len(run.nodes))
    found = {}
    for name in dict.fromkeys(run.names.values()):
        layer = None if name in fitted else layer_of(run, name)
        if layer is None or run.place[layer] <= first:
            continue
        if not run.is_answer(target_of(run, layer).end):
            found[name] = torch.arange(layer.args[1].meta["val"].shape[1])
    return found


def _masked(tensor: torch.Tensor, axes: Mapping[int, torch.Tensor]) -> torch.Tensor:
    """The tensor with zeros where it would read what goes."""
    for axis, stays_S in axes.items():
        mask_S = torch.zeros(tensor.shape[axis], dtype=tensor.dtype)
        mask_S[stays_S] = 1
        shape = [1] * tensor.ndim
        shape[axis] = -1
        tensor = tensor * mask_S.view(shape).to(tensor.device)
    return tensor


def _check_shifts(run: GraphRun, fitted: Mapping[str, torch.Tensor]) -> None:
    for name in fitted:
        if not target_of(run, layer_of(run, name)).shifts:
            raise InvalidValueError(
                f"{name.rpartition('.')[0]} has no bias and no normalisation behind it, so that "
                "compensation 'mean' cannot shift what it returns: use 'ridge'"
            )


@torch.no_grad()
def _set(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    tensors = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }
    for name, value in weights.items():
        tensors[name].copy_(value)
