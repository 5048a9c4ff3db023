"""The weights that make and read the units of a group, as matrices for weight-side criteria.

Shape suffixes: S positions along an axis, U units, C channels of the units, R all else.
"""

from __future__ import annotations

import torch
from torch import nn

from agflow.models.channel_group import CONSUMER, PRODUCER, ChannelGroup, Run
from agflow.models.slicing import tensor_of


def weights_of(model: nn.Module, group: ChannelGroup) -> list[tuple[torch.Tensor, int]]:
    """The weights of a group's producers and consumers, each with the axis of the units' channels.

    A producer [C, R] has all that makes a channel in its row: the kernel of a convolution, or the
    rows of a packed query, key and value one after the other (each of them a matrix of its own). A
    consumer [R, C] has in a column all that reads a channel: the kernel, and every place where it
    was flattened to. Biases, norms and depthwise convolutions are no members of these roles.

    Returns
    -------
    matrices, views of the model's tensors where their order allows. Channels are ``units *
    unit_width``; where wide units have another number of rows there is no matrix (the queries of
    heads whose values lost channels).

    Raises
    ------
    UnknownLayerError, ShapeError
        The group is of another model.

    Examples
    --------
    >>> from torch import nn
    >>> from agflow.models.channel_group import ChannelGroup, Member, Run
    >>> from agflow.models.group_weights import weights_of
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 10))
    >>> made = Member("0.weight", 0, "producer")
    >>> read = Member("2.weight", 1, "consumer", (Run(0, 16),))
    >>> group = ChannelGroup("0", "conv", 8, 1, 0, 0, "2", members=(made, read))
    >>> [(tuple(weight.shape), axis) for weight, axis in weights_of(model, group)]
    [((8, 27), 0), ((160, 8), 1)]
    """
    found = []
    for role, axis in ((PRODUCER, 0), (CONSUMER, 1)):
        for member in group.of(role):
            tensor = tensor_of(model, group, member)
            for run in member.runs:
                if group.unit_width in (1, run.width):
                    weight_CR = _rows(tensor.movedim(member.axis, 0), run, group)
                    found.append((weight_CR if axis == 0 else weight_CR.T, axis))
    return found


def _rows(weight_SR: torch.Tensor, run: Run, group: ChannelGroup) -> torch.Tensor:
    """The channels that a run places along the first axis, [C, R]; zeros are those of others."""
    units = run.size(group.units)
    repeats = [
        weight_SR.narrow(0, run.first + repeat * run.period, units * run.width).unflatten(
            0, (units, group.unit_width, -1)
        )
        for repeat in range(run.repeats)
    ]
    whole = repeats[0] if run.repeats == 1 else torch.stack(repeats, 2)
    of_run_CR = whole.reshape(units * group.unit_width, -1)
    if run.count is None:
        return of_run_CR
    behind = group.units - run.unit - units
    return nn.functional.pad(
        of_run_CR, (0, 0, run.unit * group.unit_width, behind * group.unit_width)
    )
