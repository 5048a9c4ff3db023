"""Norms in code: means that arithmetic brings back to the values along the axis they were over."""

# torch.fx types the arguments of a node as whatever an operator may take.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

import torch
from torch import fx

from agflow.models.tracing.call import operator_name

_ARITHMETIC = {
    "getitem",
    *(
        f"aten.{name}"
        for name in (
            "add sub rsub mul div pow square sqrt rsqrt reciprocal neg abs clamp clamp_min "
            "clamp_max clip maximum to _to_copy type_as expand expand_as unsqueeze squeeze view "
            "reshape"
        ).split()
    ),
}


def rescales(mean: fx.Node) -> bool:
    """Whether what a mean gives only shifts and scales values of the size that it was over.

    A weight that reads it on the way, or another function of it than a norm's, makes it a feature
    of its own, which the units that are gone were a part of.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.tracing.graph import exported
    >>> from agflow.models.tracing.rescaling import rescales
    >>> class Model(nn.Module):
    ...     def forward(self, x):
    ...         gate = x.mean(1, keepdim=True).sigmoid()
    ...         return x * gate * (x.pow(2).mean(1, keepdim=True) + 1e-6).rsqrt()
    >>> nodes = exported(Model(), torch.zeros(2, 3, 4, 4)).graph.nodes
    >>> [rescales(node) for node in nodes if node.name.startswith("mean")]
    [False, True]
    """
    whole = mean.args[0].meta["val"].numel()
    waiting, seen = [mean], {mean}
    while waiting:
        for user in waiting.pop().users:
            if operator_name(user) not in _ARITHMETIC:
                return False
            value = user.meta.get("val")
            joined = isinstance(value, torch.Tensor) and value.numel() >= whole
            if not joined and user not in seen:
                seen.add(user)
                waiting.append(user)
    return True
