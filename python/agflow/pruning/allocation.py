"""Options of how a plan's budget is shared out among the layers."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn

from agflow._utils.defaults import default
from agflow._utils.sequences import names_of
from agflow.errors import InvalidValueError
from agflow.models import KINDS
from agflow.models.fitting import present_groups
from agflow.models.layer_names import layers_of
from agflow.pruning.latency import LatencyTable


@dataclass(frozen=True)
class Allocation:
    """How :func:`agflow.plan` shares a budget out among the layers.

    Attributes
    ----------
    widths : how the units that stay are shared out among the layers of a group: ``"uniform"``, the
        same share of each, or a criterion, whose scores over their layer's mean are ranked
        together. By default ``"variance_weighted"``, or ``criterion`` where the statistics lack the
        weights that read each unit, as those of ``"embed"`` and ``"block"`` layers do;
        ``"uniform"`` for Scores, which hold one criterion only.
    joint : share the units out among all layers of all groups at once, by normalised importance
        for cost: the share of its layer's importance that a step of units has, over the share of
        the model's cost. Importance is by ``widths`` or, where these are ``"uniform"``, by
        ``criterion``.
    floor : least share of each layer's units that stays, in [0, 1); layers of kind ``"block"``
        excepted
    round_to : kept units are a multiple of this, in each head of ``"head_dim"`` layers, too; a
        layer with fewer stays whole. Heads and blocks are removed one by one
    groups : prune only groups of these kinds, or of this one (:data:`agflow.models.KINDS`); all
        when empty. A kind that the table lacks is skipped if it has another one
    ignored_layers : layers that are not pruned: names or patterns (``"blocks.0.*"``), or modules
        of the model that was calibrated, each of which stands for the layers that it holds or is a
        part of
    latency : LatencyTable, or its file, of this model on the device and with the batch size that
        matter; with another budget than ``latency_ms``, the plan reports its latency

    Raises
    ------
    InvalidValueError
        A number out of range, or something else than names. Names are checked against the model
        when a plan is made.

    Examples
    --------
    >>> from agflow.pruning import Allocation
    >>> Allocation(groups=["mlp"], ignored_layers=["blocks.0.*"]).round_to
    8
    """

    widths: str | None = None
    joint: bool = default("plan", "joint")
    floor: float = default("plan", "floor")
    round_to: int = default("plan", "round_to")
    groups: str | Sequence[str] = ()
    ignored_layers: str | nn.Module | Sequence[str | nn.Module] = ()
    latency: LatencyTable | str | os.PathLike | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise InvalidValueError(
                f"floor is {self.floor}, expected a share of each layer's units from 0 and below 1"
            )
        if self.round_to < 0:
            raise InvalidValueError(f"round_to is {self.round_to}, expected at least 1")
        if not isinstance(self.widths, (str, type(None))):
            raise InvalidValueError(
                f"widths is {self.widths!r:.60}, expected 'uniform' or the name of a criterion"
            )
        object.__setattr__(self, "groups", names_of(self.groups, "groups"))
        ignored = self.ignored_layers
        one = isinstance(ignored, (str, nn.Module)) or not isinstance(ignored, Iterable)
        items = (ignored,) if one else tuple(cast(Iterable, ignored))
        names = [item for item in items if not isinstance(item, nn.Module)]
        names_of(names, "ignored_layers")
        object.__setattr__(self, "ignored_layers", items)

    def groups_in(self, kinds: Collection[str]) -> list[str]:
        """The groups without the known ones that a table of these kinds lacks, unless all are."""
        present = present_groups(cast(tuple, self.groups), kinds)
        lacking = set(KINDS).difference(kinds) if present else ()
        return [group for group in self.groups if group not in lacking]

    def ignored_names(self, measured: Collection[str]) -> list[str]:
        """The names and patterns of ignored layers, those of modules included.

        Parameters
        ----------
        measured : names of the layers that statistics have

        Raises
        ------
        InvalidValueError
            A module is of no model that was calibrated in this process.
        """
        return layers_of(cast(tuple, self.ignored_layers), measured)
