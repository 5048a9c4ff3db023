"""Cut groups of channels out of a model, by what their members and attributes say.

Shape suffixes: U kept units, S positions along an axis.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from agflow._utils.modes import forget_caches
from agflow._utils.modules import put
from agflow.errors import InvalidValueError, ShapeError, UnknownLayerError
from agflow.models.channel_group import ChannelGroup, Member
from agflow.models.layer_sizes import follow_shapes

Cut = tuple[ChannelGroup, torch.Tensor]
"""A group and the units that it keeps, int64 [U] ascending."""


def cut_group(model: nn.Module, group: ChannelGroup, keep_U: torch.Tensor) -> None:
    """Keep only the units ``keep_U`` of ``group``, in place: :func:`cut_groups` of one group.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.channel_group import ChannelGroup, Member
    >>> from agflow.models.slicing import cut_group
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> members = (
    ...     Member("0.weight", 0, "producer"),
    ...     Member("0.bias", 0, "through"),
    ...     Member("2.weight", 1, "consumer"),
    ... )
    >>> group = ChannelGroup("0", "conv", 8, 1, 0, 0, "2", members=members)
    >>> cut_group(model, group, torch.tensor([0, 5]))
    >>> model[0].out_channels, model[2].in_channels
    (2, 2)
    """
    cut_groups(model, [(group, keep_U)])


@torch.no_grad()
def cut_groups(model: nn.Module, cuts: Iterable[Cut]) -> None:
    """Keep only the given units of several groups, in place.

    The index maps are those of the model as it is: groups that share an axis (two parts of a
    concatenation, heads and the channels in them) are cut in one call, for a cut moves what lies
    behind it. Parameters become new ones, which require gradients as the old ones did; what modules
    share stays shared; what groups scale is multiplied. Sizes of torch's own layers follow the
    shapes, then come the groups' attributes. A residual branch that loses its only unit, a group
    that may vanish and has no members, becomes ``nn.Identity``: its group bears the name of its
    module.

    Raises
    ------
    UnknownLayerError, ShapeError
        A group is of another model: a member is not in it, or its units reach behind the axis.
    InvalidValueError
        No unit of a group that may not vanish is kept, or ``keep_U`` does not ascend within the
        units, or a grouped layer would be left with groups of unequal width.

    Examples
    --------
    Two branches that a concatenation joins, each with its own units:

    >>> import torch
    >>> from torch import nn
    >>> from agflow.models.channel_group import ChannelGroup, Member, Run
    >>> from agflow.models.slicing import cut_groups
    >>> model = nn.ModuleDict(
    ...     {"a": nn.Linear(3, 2), "b": nn.Linear(3, 4), "both": nn.Linear(6, 1)}
    ... )
    >>> def group(name, units, first):
    ...     members = (
    ...         Member(f"{name}.weight", 0, "producer"),
    ...         Member(f"{name}.bias", 0, "through"),
    ...         Member("both.weight", 1, "consumer", (Run(first),)),
    ...     )
    ...     return ChannelGroup(name, "mlp", units, 1, 0, 0, "both", members=members)
    >>> a, b = group("a", 2, 0), group("b", 4, 2)
    >>> cut_groups(model, [(a, torch.tensor([1])), (b, torch.tensor([0, 3]))])
    >>> [layer.weight.shape for layer in model.values()]
    [torch.Size([1, 3]), torch.Size([2, 3]), torch.Size([1, 3])]
    """
    cuts = list(cuts)
    for group, keep_U in cuts:
        _check_units(group, keep_U)
    left, scales = _positions_left(model, cuts), _scales(model, cuts)
    new = {tensor: _cut(tensor, axes, scales.get(tensor, {})) for tensor, axes in left.items()}
    for module in model.modules():
        held = {name: tensor for name, tensor in _held(module) if tensor in new}
        for name, tensor in held.items():
            setattr(module, name, new[tensor])
        if held:
            follow_shapes(module, {name: left[tensor] for name, tensor in held.items()})
    for group, keep_U in cuts:
        _set_attributes(model, group, len(keep_U))
    for group, keep_U in cuts:  # last, for other groups may lie inside
        if not len(keep_U):
            put(model, group.name, nn.Identity())
    forget_caches(model)


def tensor_of(model: nn.Module, group: ChannelGroup, member: Member) -> torch.Tensor:
    """The parameter or buffer that a member of a group is.

    Raises
    ------
    UnknownLayerError, ShapeError
        The model has none of that name, or its axis is shorter than the units reach.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.channel_group import ChannelGroup, Member
    >>> from agflow.models.slicing import tensor_of
    >>> member = Member("0.weight", 0, "producer")
    >>> group = ChannelGroup("0", "mlp", 8, 1, 0, 0, "1", members=(member,))
    >>> tensor_of(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), group, member).shape
    torch.Size([8, 4])
    """
    module, _, name = member.name.rpartition(".")
    try:
        tensor = getattr(model.get_submodule(module), name)
    except AttributeError:
        tensor = None
    if not isinstance(tensor, torch.Tensor):
        raise UnknownLayerError(
            f"group {group.name} has units in {member.name}, which {type(model).__name__} has not: "
            "find the groups of this model"
        )
    reach = max(
        run.first + (run.repeats - 1) * run.period + run.size(group.units) * run.width
        for run in member.runs
    )
    size = tensor.shape[member.axis] if -tensor.ndim <= member.axis < tensor.ndim else 0
    if reach > size:
        raise ShapeError(
            f"the {group.units} units of group {group.name} reach to position {reach} of axis "
            f"{member.axis} of {member.name}, which is {list(tensor.shape)}: find the groups of "
            "this model"
        )
    return tensor


def _check_units(group: ChannelGroup, keep_U: torch.Tensor) -> None:
    if not len(keep_U) and not group.may_vanish:
        raise InvalidValueError(f"no unit of group {group.name} is kept, expected at least one")
    ascends = bool((keep_U[1:] > keep_U[:-1]).all())
    if len(keep_U) and not (ascends and keep_U[0] >= 0 and keep_U[-1] < group.units):
        raise InvalidValueError(
            f"the kept units of group {group.name} are {keep_U.tolist()}, expected numbers from 0 "
            f"to {group.units - 1}, ascending"
        )


def _positions_left(
    model: nn.Module, cuts: list[Cut]
) -> dict[torch.Tensor, dict[int, torch.Tensor]]:
    """By tensor and axis, the positions that all cuts leave, bool [S] on the CPU."""
    left: dict[torch.Tensor, dict[int, torch.Tensor]] = {}
    for group, keep_U in cuts:
        for member in group.members:
            tensor = tensor_of(model, group, member)
            axis = member.axis % tensor.ndim
            kept = member.kept(tensor.shape[axis], group.units, keep_U.cpu())
            left_S = torch.zeros(tensor.shape[axis], dtype=torch.bool)
            left_S[kept] = True
            axes = left.setdefault(tensor, {})
            axes[axis] = left_S & axes.get(axis, left_S)
    return left


def _scales(model: nn.Module, cuts: list[Cut]) -> dict[torch.Tensor, dict[int, torch.Tensor]]:
    """By tensor and axis, what cuts multiply each position by, float64 [S] on the CPU."""
    scales: dict[torch.Tensor, dict[int, torch.Tensor]] = {}
    for group, keep_U in cuts:
        for member in group.scaled:
            tensor = tensor_of(model, group, member)
            axis = member.axis % tensor.ndim
            scale_S = torch.ones(tensor.shape[axis], dtype=torch.float64)
            scale_S[member.unit_of(len(scale_S), group.units) >= 0] = (
                len(keep_U) / group.units
            ) ** 0.5
            axes = scales.setdefault(tensor, {})
            axes[axis] = scale_S * axes.get(axis, 1.0)
    return scales


def _cut(
    tensor: torch.Tensor, left: dict[int, torch.Tensor], scales: dict[int, torch.Tensor]
) -> torch.Tensor:
    """The tensor at the positions that are left, in the memory order of the whole."""
    channels_last = tensor.ndim == 4 and not tensor.is_contiguous()
    new = tensor.detach()
    for axis, scale_S in scales.items():
        new = new * scale_S.to(new).view(-1, *[1] * (new.ndim - 1 - axis))
    for axis, left_S in left.items():
        new = new.index_select(axis, left_S.nonzero().flatten().to(tensor.device))
    if channels_last:
        new = new.contiguous(memory_format=torch.channels_last)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(new, requires_grad=tensor.requires_grad)
    return new


def _held(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Tensors of a module's own, by name: parameters, buffers and what is neither."""
    held = {**vars(module), **module._parameters, **module._buffers}
    return [(name, tensor) for name, tensor in held.items() if isinstance(tensor, torch.Tensor)]


def _set_attributes(model: nn.Module, group: ChannelGroup, kept: int) -> None:
    done = set()  # a module may have several names
    for attribute in group.attributes:
        module = model.get_submodule(attribute.module)
        if (module, attribute.name, attribute.place) in done:
            continue
        done.add((module, attribute.name, attribute.place))
        old = getattr(module, attribute.name)
        if attribute.place is None:
            new = attribute.after(old, group.units, kept)
        else:
            values = list(old)
            values[attribute.place] = attribute.after(values[attribute.place], group.units, kept)
            new = type(old)(values)
        setattr(module, attribute.name, new)
