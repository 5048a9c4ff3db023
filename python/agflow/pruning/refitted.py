"""The new weights of a layer that was fitted, and of the normalisation behind it.

The architecture stays. A shift goes into the layer's bias or, where a normalisation by running
statistics follows, into that: its statistics become those of the layer's new output and its scale
and shift follow, so that evaluation computes the fitted map and training begins from statistics
that match.

Shape suffixes: K kept inputs, O outputs.
"""

# torch.fx types the arguments of a node as anything that a graph can hold.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import fx

from agflow.models.tracing.graph_run import GraphRun
from agflow.pruning.graph_targets import FitTarget


class Moments(Protocol):
    """Rows of a layer's kept inputs."""

    def output_moments(self, weight_OK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance [O] over the rows of W y."""
        ...


def refitted(
    run: GraphRun,
    target: FitTarget,
    weights: Mapping[str, torch.Tensor],
    keep_C: torch.Tensor,
    change: tuple[torch.Tensor, torch.Tensor],
    factor_O: torch.Tensor,
    rows: Moments,
) -> dict[str, torch.Tensor]:
    """The parameters and buffers that a fit changes, by name.

    Parameters
    ----------
    weights : of the network so far
    keep_C : inputs that the layer keeps; its weights of the others become zero
    change : of the weight [O, K] and the shift [O] behind the affine chain, float64
    factor_O : of the chain; outputs where it is 0 stay as they are
    rows : of the kept inputs
    """
    name = run.names[target.layer.args[1]]
    weight, factor_O = weights[name], factor_O.double()
    change_OK, change_O = (
        torch.where(factor_O.view(-1, *[1] * (part.dim() - 1)) == 0, 0, part) for part in change
    )
    safe_O = torch.where(factor_O == 0, 1, factor_O)
    kept_OK = weight[:, keep_C].double().flatten(1) + change_OK / safe_O[:, None]
    new = torch.zeros_like(weight)
    new[:, keep_C] = kept_OK.to(weight).unflatten(1, (len(keep_C), *weight.shape[2:]))
    found = {name: new}
    bias = target.bias
    bias_O = None if bias is None else weights[run.names[bias]].double()
    if target.norm is not None:
        mean_O, variance_O = rows.output_moments(kept_OK)
        mean_O = mean_O if bias_O is None else mean_O + bias_O
        found.update(_normalised(run, target.norm, weights, mean_O, variance_O, change_O / safe_O))
    elif bias_O is not None:
        found[run.names[bias]] = (bias_O + change_O / safe_O).to(weight)
    return found


def _normalised(
    run: GraphRun,
    norm: fx.Node,
    weights: Mapping[str, torch.Tensor],
    mean_O: torch.Tensor,
    variance_O: torch.Tensor,
    shift_O: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """The normalisation of an output of this mean and variance that was shifted before it.

    ``shift_O`` is what has to be added to its input for the fitted map.
    """
    scale, shift, mean, variance = (
        None if node is None else run.names[node] for node in norm.args[1:5]
    )
    eps = norm.args[7]
    spread_O = (weights[variance].double() + eps).sqrt()
    if scale is None or shift is None:  # only the mean is free
        return {mean: (weights[mean].double() - shift_O).to(weights[mean])}
    factor_O = weights[scale].double() / spread_O
    moved_O = factor_O * (mean_O - weights[mean].double() + shift_O)
    new = {
        scale: factor_O * (variance_O + eps).sqrt(),
        shift: weights[shift].double() + moved_O,
        mean: mean_O,
        variance: variance_O,
    }
    return {name: value.to(weights[name]) for name, value in new.items()}
