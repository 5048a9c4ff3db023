"""Cuts on the graph itself: a network's operators with sizes that follow what is left of each axis.

No Python code of a model runs, so that what the tracer says is tested by itself.
"""

import torch
from torch import nn

from agflow.models.tracing import axes
from agflow.models.tracing.graph import exported
from agflow.models.tracing.tracer import Tracer


def traced(model: nn.Module, *shape: int) -> Tracer:
    """The tracer of a small model in float64, on images of a shape, by default [2, 3, 8, 8]."""
    images = torch.zeros(shape or (2, 3, 8, 8), dtype=torch.float64)
    return Tracer(exported(model.double(), images))


def classes_of(tracer: Tracer) -> dict[axes.Leaf, set[tuple[str, int]]]:
    """The atoms that may lose units, and the axes of parameters that hold them.

    Those of which means are taken are left out: here a mask leaves the means as they are.
    """
    averaged = {atom for _, _, dim in tracer.norms for atom in axes.atoms(dim)}
    found: dict[axes.Leaf, set[tuple[str, int]]] = {}
    for name, dims in tracer.parameters.items():
        for axis, dim in enumerate(dims):
            for atom in axes.atoms(dim):
                if not atom.frozen and not atom.normed and atom not in averaged:
                    found.setdefault(atom, set()).add((name, axis))
    return {atom: at for atom, at in found.items() if at & tracer.emitted and at & tracer.consumed}


class Cut:
    """Some units of each class kept: the network masked, and the network cut."""

    def __init__(self, model: nn.Module, tracer: Tracer, keep: dict[axes.Leaf, torch.Tensor]):
        self.tracer, self.keep = tracer, keep
        self.dense = {
            name: tensor.detach()
            for table in (model.named_parameters, model.named_buffers)
            for name, tensor in table(remove_duplicate=False)
        }

    def kept(self, dim: axes.Dim) -> torch.Tensor:
        """The places of a dimension that stay."""
        stays = torch.ones(axes.size(dim), dtype=torch.bool)
        for atom in set(axes.atoms(dim)) & self.keep.keys():
            unit = torch.tensor(axes.coordinates(dim, atom))
            gone = torch.ones(atom.extent + 1, dtype=torch.bool)
            gone[self.keep[atom]] = gone[-1] = False  # the last: places of no unit, -1
            stays &= ~gone[unit]
        return stays.nonzero().flatten()

    def select(self, tensor: torch.Tensor, dims) -> torch.Tensor:
        """What is left of a tensor."""
        for axis, dim in enumerate(dims):
            tensor = tensor.index_select(axis, self.kept(dim))
        return tensor

    def masked(self, images: torch.Tensor) -> dict[torch.fx.Node, object]:
        """All values of the network whose consumers read no unit that is gone.

        The units themselves are filled with noise, so that whoever reads them is found out.
        """
        state = {name: tensor.clone() for name, tensor in self.dense.items()}
        for name, tensor in state.items():
            for axis, dim in enumerate(self.tracer.parameters.get(name, [])):
                gone = torch.ones(axes.size(dim), dtype=torch.bool)
                gone[self.kept(dim)] = False
                at = (*[slice(None)] * axis, gone)
                if (name, axis) in self.tracer.consumed:
                    tensor[at] = 0.0
                elif (name, axis) in self.tracer.emitted and gone.any():
                    tensor[at] += torch.randn_like(tensor[at])
        return _Run(self.tracer, state).values(images)

    def cut(self, images: torch.Tensor) -> dict[torch.fx.Node, object]:
        """All values of the network whose parameters are sliced."""
        state = {
            name: self.select(tensor, self.tracer.parameters[name])
            for name, tensor in self.dense.items()
            if name in self.tracer.parameters
        }
        return _CutRun(self, state).values(images)

    def differences(self, images: torch.Tensor) -> dict[str, float]:
        """By operator, where the values of the masked network and of the cut one differ."""
        masked, cut, found = self.masked(images), self.cut(images), {}
        for node, value in masked.items():
            dims = self.tracer.values.get(node)
            if not isinstance(value, torch.Tensor) or not isinstance(dims, list):
                continue
            expected, got = self.select(value, dims).double(), cut[node].double()
            if expected.shape != got.shape:
                found[node.name] = float("inf")
            elif expected.numel():
                scale = expected.abs().max().clamp(min=1e-3)
                difference = float((expected - got).abs().max() / scale)
                if not difference <= 1e-9:
                    found[node.name] = difference
        return found


class _Run(torch.fx.Interpreter):
    """The exported graph with parameters from a table, remembering all values."""

    def __init__(self, tracer: Tracer, state: dict[str, torch.Tensor]):
        super().__init__(tracer.program.graph_module, garbage_collect_values=False)
        self.tracer = tracer
        program = tracer.program
        signature = program.graph_signature
        targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        constants = signature.inputs_to_lifted_tensor_constants
        self.given = {name: state[target] for name, target in targets.items()}
        for name, target in constants.items():
            self.given[name] = program.constants[target]

    def values(self, images: torch.Tensor) -> dict[torch.fx.Node, object]:
        holders = [n for n in self.module.graph.nodes if n.op == "placeholder"]
        seen: dict[torch.fx.Node, object] = {}
        self.seen = seen
        with torch.no_grad():
            self.run(*(self.given.get(node.name, images) for node in holders))
        return seen

    def run_node(self, n):
        value = super().run_node(n)
        # in-place operators change what was remembered, hence a copy
        self.seen[n] = value.clone() if isinstance(value, torch.Tensor) else value
        return value


class _CutRun(_Run):
    """The same with arguments that are sizes as they are after the cut."""

    def __init__(self, cut: Cut, state: dict[str, torch.Tensor]):
        super().__init__(cut.tracer, state)
        self.cut = cut

    def run_node(self, n):
        self.node = n
        return super().run_node(n)

    def sizes(self, dims) -> list[int]:
        return [len(self.cut.kept(dim)) for dim in dims]

    def call_function(self, target, args, kwargs):
        name = str(target).split(".")[1] if "aten." in str(target) else ""
        dims, source = self.tracer.values.get(self.node), self.node.all_input_nodes
        own = self.tracer.values.get(source[0]) if source else None
        args = list(args)
        if name in ("view", "reshape", "expand", "flatten", "unflatten", "_unsafe_view"):
            sizes = self.sizes(dims)
            return args[0].expand(sizes) if name == "expand" else args[0].reshape(sizes)
        if name in ("conv1d", "conv2d", "conv3d") and len(args) > 6 and args[6] > 1:
            args[6] = args[0].shape[1] // args[1].shape[1]
        elif name.startswith("conv_transpose") and len(args) > 6 and args[6] > 1:
            args[6] = self.sizes(dims)[1] // args[1].shape[1]
        elif name in ("split", "split_with_sizes", "chunk"):
            axis = args[2] if len(args) > 2 else 0
            return args[0].split([self.sizes(d)[axis] for d in dims], axis)
        elif name == "narrow":
            axis, start = args[1], args[2] % axes.size(own[args[1]])
            args[2] = int((self.cut.kept(own[axis]) < start).sum())
            args[3] = self.sizes(dims)[axis]
        elif name == "slice":
            kept = self.cut.kept(own[args[1]])
            start, end, _ = slice(*args[2:4]).indices(axes.size(own[args[1]]))
            if len(args) == 4:  # every so manieth starts as before
                args[2:4] = [int((kept < start).sum()), int((kept < end).sum())]
        elif name == "repeat":
            args[1] = [after // n for after, n in zip(self.sizes(dims), args[0].shape, strict=True)]
        elif name in ("group_norm", "channel_shuffle"):
            parts = axes.factored(own[1], axes.size(own[1]) // args[1])
            if parts is not None:  # else all of it stays
                args[1] = len(self.cut.kept(parts[0]))
        return target(*args, **kwargs)
