"""Rarely needed options of a calibration."""

from __future__ import annotations

import math
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
    temperature : that the model's answers are softened by (logits / temperature) before
        ``loss="self"`` draws labels from them, above 0
    seed : recorded with the statistics: the seed the images were drawn with, the labels of
        ``loss="self"`` and the directions of ``loss="features"``

    Raises
    ------
    InvalidValueError
        ``nonfinite`` is unknown, ``temperature`` is not a number above 0, or ``dump`` comes with
        ``nonfinite="skip"``: dumped batches are whole.
    """

    nonfinite: str = default("calibrate", "nonfinite")
    dump: str | os.PathLike | None = None
    seed: int = default("common", "seed")
    temperature: float = default("calibrate", "temperature")

    def __post_init__(self):
        if self.nonfinite not in NONFINITE_ACTIONS:
            raise InvalidValueError(
                f"nonfinite is {self.nonfinite!r}, expected one of: {', '.join(NONFINITE_ACTIONS)}"
            )
        if not (0 < self.temperature < math.inf):
            raise InvalidValueError(
                f"temperature is {self.temperature!r}, expected a number above 0: 1 draws from the "
                "answers as they are"
            )
        if self.dump is not None and self.nonfinite == "skip":
            raise InvalidValueError(
                "dump was given with nonfinite='skip', but dumped batches are whole: "
                "use nonfinite='refuse' with dump"
            )
