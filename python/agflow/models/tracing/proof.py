"""Prove groups: the model without some units must compute what it computes with them masked.

The proof runs on a copy in float64 whose weights are perturbed, on random images. A group that
fails is left out, with the reason; all that are left have been cut together.
"""

from __future__ import annotations

import copy
import io
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointError
from torch.utils.hooks import RemovableHandle

from agflow._utils.hooks import temporary_hooks
from agflow._utils.modes import forget_caches
from agflow.errors import UnsupportedModelError
from agflow.models.channel_group import CONSUMER, ChannelGroup, Member
from agflow.models.copying import copy_of
from agflow.models.norms_of_kept import norms_of_kept
from agflow.models.outputs import whole_output
from agflow.models.slicing import Cut, cut_groups, tensor_of
from agflow.models.tracing.by_graph import ByGraph, are_in_code
from agflow.models.tracing.failing import why_it_fails
from agflow.models.tracing.perturbing import estimate_statistics, perturbed

NO_GRAPH = (
    "a norm over them stands in the code of a larger module, and torch.export does not read the "
    "model in the precision of the proof: put the norm into a module of its own"
)
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Of the largest logit, by the precision of the check."""


class Proof:
    """Compares cut and masked copies of one model on the same images.

    Attributes
    ----------
    model : the perturbed copy
    images : random, [2, C, H, W]; copies are compared on the first
    whole : the proof that this one is smaller than, or itself
    """

    def __init__(self, model: nn.Module, input_size: Sequence[int], seed: int = 0):
        self.generator = torch.Generator().manual_seed(seed)
        self.model = perturbed(model, self.generator)
        self.images = torch.randn(2, *input_size, generator=self.generator, dtype=torch.float64)
        try:
            logits = estimate_statistics(self.model, self.images, self.generator)
        except RuntimeError:  # code of the model's own makes tensors in float32
            self.model, self.images = self.model.float(), self.images.float()
            logits = estimate_statistics(self.model, self.images, self.generator)
        self.whole, self._shape = self, logits.shape[1:]
        self.tolerance = _TOLERANCE[self.images.dtype]

    @cached_property
    def smaller(self) -> Proof:
        """The same on smaller images; itself where none are possible.

        What fails there is found sooner. The channels that code computes with do not depend on the
        size of the images as long as the logits keep their shape.
        """
        smaller = copy.copy(self)
        vars(smaller).pop("graph", None)
        smaller.images = nn.functional.interpolate(
            self.images, smaller_sides(self.images.shape[2:])
        )
        if smaller.images.numel() >= self.images.numel() / 2:
            return self
        # Models may adapt to the size of what they see for good (windows that are not shifted).
        smaller.model = copy_of(self.model)
        try:
            logits = smaller._logits(smaller.model)
        except Exception:  # the model wants its own size
            return self
        return smaller if logits.shape[1:] == self._shape else self

    @cached_property
    def graph(self) -> ByGraph | None:
        """The graph of the model on these images; None where torch.export does not read it."""
        try:
            return ByGraph(self.model, self.images)
        except UnsupportedModelError:
            return None

    def draw(self, groups: Iterable[ChannelGroup], turn: int = 0) -> list[Cut]:
        """Random units for groups to keep, a quarter to three quarters; branches go.

        Of groups of one size some keep many and some few, or code that halves what it gets would
        not be noticed. Any two differ in one of :func:`turns_for` turns.
        """
        ranks: Counter[int] = Counter()
        cuts = []
        for group in groups:
            # The first two turns are each other's opposite, the others go by further digits.
            many = bool(ranks[group.units] >> max(0, turn - 1) & 1) != (turn == 1)
            cuts.append((group, self._kept(group, many)))
            ranks[group.units] += 1
        return cuts

    def _kept(self, group: ChannelGroup, many: bool) -> torch.Tensor:
        if group.may_vanish:
            return torch.zeros(0, dtype=torch.int64)
        units = group.units // group.parts
        quarter, half = max(1, units // 4), units // 2
        least, most = (half + 1, max(half + 1, 3 * units // 4)) if many else (quarter, half)
        count = least + int(torch.randint(most - least + 1, (), generator=self.generator))
        of_parts = (
            part * units + torch.randperm(units, generator=self.generator)[:count].sort().values
            for part in range(group.parts)
        )
        return torch.cat(list(of_parts))

    def refusal(self, cuts: Sequence[Cut]) -> str | None:
        """Why these cuts are wrong, as a clause; None where they are right."""
        if are_in_code(cuts) and not self._has_the_graph:
            return NO_GRAPH if self.whole is self else self.whole.refusal(cuts)
        model = cut_copy(self.model, cuts)
        try:
            with redirect_stderr(io.StringIO()):  # where torch.fx shows the code that fails
                cut = self._logits(model)
        except Exception as error:  # whatever the model's code raises, it cannot run so
            return f"the model does not run without them: {why_it_fails(model, error)}"
        masked = self._masked(cuts)
        if cut.shape != masked.shape:
            return f"its logits become {list(cut.shape)} of {list(masked.shape)}"
        error = ((cut - masked).abs().max() / masked.abs().max()).item()
        if error <= self.tolerance:
            return None
        return f"removing them is not the same as masking them (logits differ by {error:.1e})"

    def training_refusal(self, cuts: Sequence[Cut]) -> str | None:
        """Why a cut model cannot be trained though the dense one can; None where it can."""
        error = self._training_error(cut_copy(self.model, cuts))
        if error is None or self._training_error(self.model) is not None:
            return None
        return f"the model does not run in training mode without them: {error}"

    @torch.no_grad()
    def _training_error(self, model: nn.Module) -> str | None:
        copied = copy.deepcopy(model).train()
        try:
            with redirect_stderr(io.StringIO()):
                copied(self.images)
        except Exception as error:
            return why_it_fails(copied, error)
        return None

    def effects(self, groups: Sequence[ChannelGroup]) -> list[float]:
        """By group, how far its units move the logits, to first order, of the largest logit."""
        weights = {
            member.name: tensor_of(self.model, group, member).detach().requires_grad_()
            for group in groups
            for member in group.of(CONSUMER)
        }
        with _reading(self.model, weights):
            logits = whole_output(self.model(self.images[:1]))
        if not logits.requires_grad:  # none of them is read on the way to the logits
            return [0.0] * len(groups)
        draw = torch.randn(logits.shape, generator=self.generator, dtype=torch.float64)
        try:
            gradients = torch.autograd.grad(
                (logits * draw).sum(), list(weights.values()), allow_unused=True
            )
        except CheckpointError as error:
            raise UnsupportedModelError(
                f"{type(self.model).__name__} checkpoints activations (torch.utils.checkpoint), "
                "and so parts of it run twice: switch that off while it is measured and pruned"
            ) from error
        flow = {
            name: torch.zeros_like(weight) if gradient is None else (weight * gradient).abs()
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
        largest = logits.detach().abs().max()
        return [
            sum(_at_units(flow[member.name], group, member) for member in group.of(CONSUMER))
            / largest.item()
            for group in groups
        ]

    @property
    def _has_the_graph(self) -> bool:
        """Whether the nodes of the graph are those of the whole proof, by name."""
        own, other = self.graph, self.whole.graph
        return own is not None and other is not None and own.path == other.path

    @torch.no_grad()
    def _logits(self, model: nn.Module) -> torch.Tensor:
        return whole_output(model.eval()(self.images[:1]))

    @torch.no_grad()
    def _masked(self, cuts: Sequence[Cut]) -> torch.Tensor:
        """Logits of the whole model whose consumers do not read the units that go."""
        weights: dict[str, torch.Tensor] = {}
        hooks = []
        for group, keep_U in cuts:
            for member in group.of(CONSUMER):
                old = weights.get(member.name, tensor_of(self.model, group, member))
                weights[member.name] = _without(old, group, member, keep_U)
            hooks += [tap for tap in group.taps if not len(keep_U)]
        if are_in_code(cuts) and self.graph is not None:
            output = self.graph.output(self.model, self.images, cuts, weights)
            return whole_output(output)[:1]
        zeroed = (_zeroed(self.model.get_submodule(tap.module)) for tap in hooks)
        kept = temporary_hooks(itertools.chain(zeroed, norms_of_kept(self.model, cuts)))
        with kept, _reading(self.model, weights):
            return whole_output(self.model(self.images[:1]))


@contextmanager
def _reading(model: nn.Module, weights: dict[str, torch.Tensor]) -> Iterator[None]:
    """Let the model read other tensors in place of some, by name, in all places that hold them.

    ``torch.func.functional_call`` fails on a module that has two names.
    """
    others = {_tensor_at(model, name): tensor for name, tensor in weights.items()}
    tables: list[dict[str, Any]] = [
        table for module in model.modules() for table in (module._parameters, module._buffers)
    ]
    places = [
        (table, key, tensor)
        for table in tables
        for key, tensor in table.items()
        if tensor is not None and tensor in others
    ]
    for table, key, tensor in places:
        table[key] = others[tensor]
    try:
        yield
    finally:
        for table, key, tensor in places:
            table[key] = tensor


def _tensor_at(model: nn.Module, name: str) -> torch.Tensor:
    module, _, key = name.rpartition(".")
    return getattr(model.get_submodule(module), key)


def smaller_sides(sides: Iterable[int]) -> list[int]:
    """Height and width of the images that the quick proofs take."""
    return [max(32, 32 * round(0.43 * side / 32)) for side in sides]


def turns_for(groups: Iterable[ChannelGroup]) -> int:
    """Draws in which any two groups of one size keep different numbers of units, at least two."""
    sizes = Counter(group.units for group in groups)
    return 1 + max(1, (max(sizes.values(), default=1) - 1).bit_length())


def cut_copy(model: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """A copy with these cuts that shares the tensors which stay whole."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    forget_caches(model)
    cut = copy.deepcopy(model, shared)
    cut_groups(cut, cuts)
    return cut


def _without(
    weight: torch.Tensor, group: ChannelGroup, member: Member, keep_U: torch.Tensor
) -> torch.Tensor:
    """A consumer's weight with zeros where it would read units that go."""
    size = weight.shape[member.axis]
    mask_S = torch.zeros(size, dtype=weight.dtype)
    mask_S[member.kept(size, group.units, keep_U)] = 1
    shape = [1] * weight.ndim
    shape[member.axis] = size
    return weight * mask_S.view(shape)


def _at_units(flow: torch.Tensor, group: ChannelGroup, member: Member) -> float:
    """The sum of a consumer's flow over the units of a group."""
    units_S = member.unit_of(flow.shape[member.axis], group.units)
    return flow.movedim(member.axis, 0)[units_S >= 0].sum().item()


def _zeroed(module: nn.Module) -> RemovableHandle:
    """Make a module return zeros."""
    return module.register_forward_hook(lambda *called: called[-1] * 0)
