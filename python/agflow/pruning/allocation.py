"""Options of how a plan's budget is shared out among the layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from agflow._utils.defaults import default
from agflow.errors import InvalidValueError
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
    floor : least share of each layer's units that stays, in [0, 1); layers of group ``"block"``
        excepted
    round_to : kept units are a multiple of this in ``"mlp"`` and ``"embed"`` layers and in each
        head of ``"head_dim"`` layers; heads and blocks are removed whole
    groups : prune only these groups (``"mlp"``, ``"heads"``, ``"head_dim"``, ``"embed"``,
        ``"block"``); all when empty
    ignored_layers : names or patterns (``"blocks.0.*"``) of layers that are not pruned
    latency : LatencyTable, or its file, of this model on the device and with the batch size that
        matter; with another budget than ``latency_ms``, the plan reports its latency

    Raises
    ------
    InvalidValueError
        A number out of range, or a string instead of a sequence of names. Names are checked against
        the model when a plan is made.

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
    groups: Sequence[str] = ()
    ignored_layers: Sequence[str] = ()
    latency: LatencyTable | str | os.PathLike | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.floor < 1:
            raise InvalidValueError(
                f"floor is {self.floor}, expected a share of each layer's units from 0 and below 1"
            )
        if self.round_to < 0:
            raise InvalidValueError(f"round_to is {self.round_to}, expected at least 1")
        for name in ("groups", "ignored_layers"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise InvalidValueError(
                    f"{name} is {value!r}, expected a sequence of names: pass ({value!r},)"
                )
