"""What the readers of all forms of data give: labels, names of classes, and images by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image


class Images(Protocol):
    """Images by number, which can be pickled: workers of a loader get a copy.

    Attributes
    ----------
    files : paths of the files that hold the images
    """

    @property
    def files(self) -> Sequence[str]: ...

    def name(self, index: int) -> str:
        """Where the image is, in words: a path, or a row of a file."""
        ...

    def open(self, index: int) -> AbstractContextManager[Image.Image]:
        """Open an image, whose pixels need not be decoded yet."""
        ...


@dataclass(frozen=True)
class Source:
    """The labels of a data set, and its images on demand.

    Attributes
    ----------
    labels_N : int64 [N]; numbers of ``names`` where there are any
    names : of the classes, None where labels are numbers alone
    take : the images of some rows, in their order: rows int64 [M] to images
    """

    labels_N: np.ndarray
    names: list[str] | None
    take: Callable[[np.ndarray], Images]
