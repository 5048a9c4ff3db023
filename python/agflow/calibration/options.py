"""Rarely needed options of a calibration."""

from __future__ import annotations

import os
from dataclasses import dataclass

from agflow._utils.defaults import default
from agflow.errors import InvalidValueError

NONFINITE_ACTIONS = ("refuse", "skip")


@dataclass(frozen=True)
class CalibrationOptions:
    """Rarely needed options of :func:`agflow.calibrate`.

    Attributes
    ----------
    nonfinite : what NaN or infinity in a batch does: ``"refuse"`` raises; ``"skip"`` leaves the
        batch out of the layers where it occurs, warns at the end, and records how many were left
        out in the metadata ``agflow.skipped``
    dump : folder that also gets the raw tensors as Arrow files, from which ``agflow statistics``
        computes the same statistics (those of weight gradients excepted)
    seed : recorded with the statistics: the seed the images were drawn with

    Raises
    ------
    InvalidValueError
        ``nonfinite`` is unknown, or ``dump`` comes with ``nonfinite="skip"``: dumped batches are
        whole.
    """

    nonfinite: str = default("calibrate", "nonfinite")
    dump: str | os.PathLike | None = None
    seed: int = default("common", "seed")

    def __post_init__(self):
        if self.nonfinite not in NONFINITE_ACTIONS:
            raise InvalidValueError(
                f"nonfinite is {self.nonfinite!r}, expected one of: {', '.join(NONFINITE_ACTIONS)}"
            )
        if self.dump is not None and self.nonfinite == "skip":
            raise InvalidValueError(
                "dump was given with nonfinite='skip', but dumped batches are whole: "
                "use nonfinite='refuse' with dump"
            )
