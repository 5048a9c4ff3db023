"""Which nodes of a traced graph a loss reaches: those that what it reads is computed of."""

# torch.fx types the arguments of a node as whatever an operator may take.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree

from agflow.errors import UnsupportedModelError
from agflow.models.outputs import features_of, logits_of

UNREACHED = (
    "what is computed of them does not reach the logits or features, the first of several "
    "outputs: no gradient would score them"
)


def reached_nodes(program: torch.export.ExportedProgram) -> set[fx.Node]:
    """The nodes that logits or features are computed of; what runs beside them has no gradient.

    Examples
    --------
    >>> import torch
    >>> from agflow.models.tracing.graph import exported
    >>> from agflow.models.tracing.reached import reached_nodes
    >>> class Two(torch.nn.Module):
    ...     def forward(self, x):
    ...         return x.sin(), x.cos()
    >>> sorted(node.name for node in reached_nodes(exported(Two(), torch.zeros(2, 3, 4, 4))))
    ['sin', 'x']
    """
    waiting = _judged(program)
    found = set(waiting)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def _judged(program: torch.export.ExportedProgram) -> list[fx.Node]:
    """The outputs that are logits or features; all, where that is for the images to show."""
    (outputs,) = next(node for node in program.graph.nodes if node.op == "output").args
    specs = program.graph_signature.output_specs
    kinds = [spec.kind is OutputKind.USER_OUTPUT for spec in specs]
    own = [output for output, is_own in zip(outputs, kinds, strict=True) if is_own]
    stand_ins = [_stand_in(output) for output in own]
    returned = _pytree.tree_unflatten(stand_ins, program.call_spec.out_spec)
    for choose in (logits_of, features_of):
        try:
            judged = choose(returned)
        except UnsupportedModelError:
            continue
        nodes = [node for node, value in zip(own, stand_ins, strict=True) if value is judged]
        if nodes:
            return nodes
    return [node for node in own if isinstance(node, fx.Node)]


def _stand_in(output: Any) -> Any:
    """A tensor of the same shape and type without memory."""
    if not isinstance(output, fx.Node):
        return output
    return torch.empty_like(output.meta["val"], device="meta")
