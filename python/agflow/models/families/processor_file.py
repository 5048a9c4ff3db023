"""The image processor that a Hugging Face model was saved with."""

from __future__ import annotations

import importlib
import json
import pathlib
from typing import Any

from torch import nn

from agflow._utils.files import read_bytes
from agflow._utils.json_file import MAX_JSON_BYTES
from agflow.data.preprocessing import Preprocessing
from agflow.data.processors import processor_values
from agflow.errors import CorruptFileError

FILE = "preprocessor_config.json"


def saved_processor(model: nn.Module, folder: pathlib.Path | None = None) -> dict[str, Any]:
    """Read the values of ``preprocessor_config.json``; {} where the model has none.

    Parameters
    ----------
    folder : where the weights are from; else the folder, or what transformers has fetched of the
        repository, that the model was made from

    Raises
    ------
    FileError, CorruptFileError
        The file cannot be read or holds no JSON object.
    """
    path = folder / FILE if folder is not None else _of_origin(model)
    if path is None or not path.exists():
        return {}
    raw = read_bytes(path, "image processor", MAX_JSON_BYTES)
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CorruptFileError(f"image processor {path} is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CorruptFileError(
            f"image processor {path} holds a {type(values).__name__}, expected a JSON object"
        )
    return values


def known_processor(model: nn.Module, folder: pathlib.Path | None = None) -> dict[str, Any]:
    """As :func:`saved_processor`; what it does not say is as in the processor of the class."""
    kind = f"{type(model).__name__.partition('For')[0]}ImageProcessor"
    own = getattr(importlib.import_module("transformers"), kind)().to_dict()
    return {**own, **saved_processor(model, folder)}


def processor_files(preprocessing: Preprocessing) -> dict[str, str]:
    """The file of an image processor that does the same, by its name; {} where none does."""
    values = processor_values(preprocessing)
    return {} if values is None else {FILE: json.dumps(values, indent=2) + "\n"}


def _of_origin(model: nn.Module) -> pathlib.Path | None:
    origin = getattr(model, "name_or_path", "")
    if not origin:
        return None
    if pathlib.Path(origin).is_dir():
        return pathlib.Path(origin) / FILE
    import transformers.utils  # loaded already, with the model

    found = transformers.utils.cached_file(
        origin,
        FILE,
        local_files_only=True,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return None if found is None else pathlib.Path(found)
