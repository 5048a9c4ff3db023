"""How a data set is read, where its own form leaves that open."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from agflow._utils.defaults import default
from agflow.errors import InvalidValueError


@dataclass(frozen=True)
class DataOptions:
    """What :func:`agflow.load_dataset` cannot know from the data.

    Attributes
    ----------
    label : label column of a parquet file; by default ``label``, or ``imagenet_label`` where the
        file has it and the model has the 1,000 classes of ImageNet, or the one column that
        Hugging Face's metadata call class labels
    image : image column of a parquet file; by default ``image``, or the one column that holds
        images by its metadata or its type
    class_map : the class of the model for every class of the data: {name or number: number or
        name}, or a file of it, JSON (one object) or CSV (two fields a line, no header). By default
        the names are matched (:mod:`agflow.data.class_names`)
    cache_bytes : of decoded images that a data set keeps, shared by the workers of a loader

    Raises
    ------
    InvalidValueError
        ``cache_bytes`` is negative.

    Examples
    --------
    >>> from agflow.data import DataOptions
    >>> DataOptions(label="fine_label", class_map={"cat": 281, "dog": "n02099601"}).label
    'fine_label'
    """

    label: str | None = None
    image: str | None = None
    class_map: Mapping[str | int, str | int] | str | os.PathLike | None = None
    cache_bytes: int = default("data", "cache_bytes")

    def __post_init__(self):
        if self.cache_bytes < 0:
            raise InvalidValueError(f"cache_bytes is {self.cache_bytes}, expected 0 or more")
