"""The preprocessing in the metadata of an exported file; without torch."""

from __future__ import annotations

import pathlib
from typing import Any

from agflow.data.preprocessing import Preprocessing
from agflow.errors import CorruptFileError, InvalidValueError


def file_preprocessing(path: pathlib.Path, metadata: dict[str, Any]) -> Preprocessing | None:
    """The preprocessing in the metadata of an exported file; None where it has none.

    Raises
    ------
    CorruptFileError
        It is none that a preprocessing can be.

    Examples
    --------
    >>> import pathlib
    >>> from agflow.data.exported_preprocessing import file_preprocessing
    >>> values = {"input_size": [8, 8], "mean": [0.5], "std": [0.5], "interpolation": "bicubic",
    ...           "crop_pct": 1.0}
    >>> file_preprocessing(pathlib.Path("light.onnx"), {"preprocessing": values}).input_size
    (8, 8)
    """
    values = metadata.get("preprocessing")
    if values is None:
        return None
    try:
        return Preprocessing.from_dict(values)
    except (TypeError, KeyError, AttributeError, InvalidValueError) as error:
        raise CorruptFileError(
            f"the preprocessing in the metadata of {path} is damaged "
            f"({type(error).__name__}: {error}): export the model again"
        ) from error
