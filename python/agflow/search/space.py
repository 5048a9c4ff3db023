"""The candidates and the cost that a search for a cascade considers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agflow._utils.defaults import default
from agflow._utils.sequences import names_of, numbers_of
from agflow.cascade.ledger import MACS
from agflow.errors import InvalidValueError

Size = tuple[int, int]
"""Height and width in pixels."""

COST_UNITS = {"macs": MACS, "seconds": "ms"}


@dataclass(frozen=True)
class SearchSpace:
    """The light experts that :func:`agflow.design_cascade` tries, and the cost it minimises.

    The candidates are all combinations of image size, share of the MACs, depth and shared blocks.

    Attributes
    ----------
    image_sizes : height and width in pixels, or one number for both; by default the heavy expert's
        own and 5/7, 1/2 and 3/7 of it, rounded to whole patches, or to whole positions of a
        convolutional network's last map
    macs : shares of the heavy expert's MACs at each image size, in (0, 1]; 1 is dense
    groups : groups of units that may be pruned; with ``"block"``, each share is also tried with
        whole residual branches among them
    shared_blocks : numbers of first blocks that both experts share, tried at the heavy expert's own
        image size
    ensemble : also try the ensemble of both experts for images that escalate, where that is
        cheaper. The router must then show that the ensemble keeps up where all images escalate, so
        that no threshold may pass where the heavy expert's answers allow one
    cost : ``"macs"``, or ``"seconds"``: measured on this machine, in batches of 32

    Raises
    ------
    InvalidValueError
        A value is out of range.

    Examples
    --------
    >>> import agflow
    >>> agflow.search.SearchSpace(image_sizes=(224, 112), macs=(1.0, 0.75)).cost
    'macs'
    """

    image_sizes: int | Sequence[int | Size] | None = None
    macs: float | Sequence[float] = default("design", "macs")
    groups: str | Sequence[str] = default("calibrate", "groups")
    shared_blocks: int | Sequence[int] = default("design", "shared_blocks")
    ensemble: bool = default("route", "ensemble")
    cost: str = default("design", "cost")

    def __post_init__(self):
        object.__setattr__(self, "groups", names_of(self.groups, "groups"))
        macs = numbers_of(self.macs, "macs")
        shared_blocks = numbers_of(self.shared_blocks, "shared_blocks")
        object.__setattr__(self, "macs", macs)
        object.__setattr__(self, "shared_blocks", shared_blocks)
        if isinstance(self.image_sizes, int):
            object.__setattr__(self, "image_sizes", (self.image_sizes,))
        if isinstance(self.image_sizes, str):
            raise InvalidValueError(
                f"image_sizes is {self.image_sizes!r}, expected sizes in pixels, such as (224, 112)"
            )
        if not all(0 < share <= 1 for share in macs):
            raise InvalidValueError(
                f"macs are {list(macs)}, expected shares of the heavy expert's in (0, 1]"
            )
        if not all(blocks >= 0 for blocks in shared_blocks):
            raise InvalidValueError(
                f"shared_blocks are {list(shared_blocks)}, expected whole numbers from 0"
            )
        if self.cost not in COST_UNITS:
            raise InvalidValueError(f"cost is {self.cost!r}, expected 'macs' or 'seconds'")
