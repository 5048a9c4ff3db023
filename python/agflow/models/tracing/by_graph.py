"""The masked reference of a cut, run by its graph.

A norm that is no module by itself (``F.layer_norm`` in a forward pass, a root mean square written
out) cannot be watched by hooks. In the graph it is a node as any other, and takes its means over
the kept channels there.
"""

# torch.fx types the arguments of a node as anything that a graph can hold.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.export.graph_signature import OutputKind
from torch.utils import _pytree

from agflow.models.slicing import Cut
from agflow.models.tracing.graph import exported, path_of
from agflow.models.tracing.graph_run import GraphRun, OfKept


def are_in_code(cuts: Sequence[Cut]) -> bool:
    """Whether some means over units are taken by code that is no module by itself."""
    return any(norm.module is None for group, _ in cuts for norm in group.norms)


class ByGraph:
    """A model's graph on images of one shape, that answers for the model.

    Attributes
    ----------
    path : the operators that images go through, and the shapes of the outputs
    """

    def __init__(self, model: nn.Module, images: torch.Tensor):
        program = exported(model, images)
        self.path = path_of(program)
        self._run, self._spec = GraphRun(program), program.call_spec.out_spec
        (outputs,) = next(node for node in program.graph.nodes if node.op == "output").args
        specs = program.graph_signature.output_specs
        self._returned = [
            node
            for node, spec in zip(outputs, specs, strict=True)
            if spec.kind is OutputKind.USER_OUTPUT
        ]

    def output(
        self,
        model: nn.Module,
        images: torch.Tensor,
        cuts: Sequence[Cut],
        weights: Mapping[str, torch.Tensor] | None = None,
    ) -> Any:
        """What a model of this graph puts out when means over units are over the kept ones.

        Parameters
        ----------
        cuts : groups, each with the units that it keeps; branches that go return zeros
        weights : in the places of the model's own, by name
        """
        run, single = self._run, len(images) == 1 and self._run.batch_size == 2
        images = images.repeat(2, *[1] * (images.ndim - 1)) if single else images
        weights = {**run.weights_of(model), **(weights or {})}
        gone = {
            run.output_of(tap.module)
            for group, keep_U in cuts
            if not len(keep_U)
            for tap in group.taps
        }
        norms = norms_of_kept_channels(run, cuts)
        known = run.run({run.image: images}, weights, 0, len(run.nodes), zero=gone, norms=norms)
        found = [
            run.value_of(node, known, weights.__getitem__) if isinstance(node, fx.Node) else node
            for node in self._returned
        ]
        if single:
            found = [value[:1] if isinstance(value, torch.Tensor) else value for value in found]
        return _pytree.tree_unflatten(found, self._spec)


@contextmanager
def run_by_graph(model: nn.Module, cuts: Sequence[Cut]) -> Iterator[None]:
    """While open, the model is run by its graph: means over units are over the kept ones."""
    graphs: dict[torch.Size, ByGraph] = {}

    def forward(images: torch.Tensor) -> Any:
        if images.shape not in graphs:
            del model.forward
            graphs[images.shape] = ByGraph(model, images)
            model.forward = forward
        return graphs[images.shape].output(model, images, cuts)

    model.forward = forward
    try:
        yield
    finally:
        vars(model).pop("forward", None)


def norms_of_kept_channels(run: GraphRun, cuts: Sequence[Cut]) -> OfKept:
    """The nodes that take means over units of the groups, and the channels that stay for them."""
    found: dict[fx.Node, tuple[int, torch.Tensor]] = {}
    nodes = {node.name: node for node in run.nodes}
    for group, keep_U in cuts:
        for norm in group.norms:
            for name, axis in norm.steps:
                size = nodes[name].args[0].meta["val"].shape[axis]
                stays_S = norm.kept(size, group.units, keep_U.cpu())
                _, before_S = found.get(nodes[name], (axis, stays_S))
                found[nodes[name]] = axis, before_S[torch.isin(before_S, stays_S)]
    return found
