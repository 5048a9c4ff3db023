"""What a runtime of both experts gives the server, whichever it is."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from agflow.cascade.ledger import CascadeCosts
from agflow.data.preprocessing import Preprocessing

WARM_BATCH = 32
"""The larger batch that is tried at the start, where neither server nor cascade names one."""


class Experts(Protocol):
    """Both experts of a cascade in one runtime.

    Attributes
    ----------
    runtime, runtime_version : such as "onnxruntime" and "1.32.0"
    device : as torch names it
    threads : of a pass
    shape : channels, height and width of the images
    classes : number of logits
    class_names : in their order; None where they are not known
    preprocessing : None where the folder holds none
    max_batch : greatest number of images in a pass; None for no limit
    costs : of one image
    """

    runtime: str
    runtime_version: str
    device: str
    threads: int
    shape: tuple[int, int, int]
    classes: int
    class_names: list[str] | None
    preprocessing: Preprocessing | None
    max_batch: int | None
    costs: CascadeCosts

    def light(self, images_BCHW: np.ndarray) -> np.ndarray:
        """The light logits, float32 [B, K]. The tokens of a shared prefix are kept."""
        ...

    def heavy(self, images_ECHW: np.ndarray, rows_E: np.ndarray) -> np.ndarray:
        """The heavy logits, float32 [E, K], of images at these rows of the last light batch."""
        ...


def warm_up(experts: Experts, batch: int | None) -> None:
    """Run passes of the smallest and of the largest batch, which are slow the first time.

    Parameters
    ----------
    batch : the largest number of images that the server will send; None takes the cascade's
    """
    for images in sorted({1, batch or experts.max_batch or WARM_BATCH}):
        black = np.zeros((images, *experts.shape), np.float32)
        experts.light(black)
        experts.heavy(black, np.arange(images))
