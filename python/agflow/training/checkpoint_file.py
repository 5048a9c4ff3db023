"""Checkpoint files: safetensors with a checksum, written whole or not at all."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open

from agflow._utils.files import atomic_file, open_regular, read_errors
from agflow._utils.json_file import FORMAT, parse_object
from agflow.errors import CorruptFileError
from agflow.training.digests import hash_tensors

EARLIER_FORMAT = 1  # counted the images that are answered right as "hits"


def write(path: pathlib.Path, content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write JSON-ready ``content`` and ``tensors`` with a checksum over both.

    Raises
    ------
    FileError
        The file cannot be written; an older one of that name is still there.
    """
    text = json.dumps({"format": FORMAT, **content})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"agflow.checkpoint": text, "sha256": hash_tensors(tensors, text).hexdigest()}
    with atomic_file(path, "checkpoint") as made:
        try:
            safetensors.torch.save_file(tensors, made, metadata)
        except SafetensorError as error:  # its word for errors of the operating system
            raise OSError(str(error)) from error


def read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Content and tensors of a file that :func:`write` made.

    Raises
    ------
    FileError, CorruptFileError
        The file cannot be read; it is damaged, no checkpoint or of another format.
    """
    with read_errors(f"checkpoint {path}"):
        os.close(open_regular(path, "checkpoint"))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        text = metadata["agflow.checkpoint"]
        content = parse_object(text.encode(), "its description")
        digest = hash_tensors(tensors, text).hexdigest()
    except Exception as error:  # safetensors and torch raise many kinds for damaged files
        raise CorruptFileError(
            f"{path} is damaged or no checkpoint ({_first_line(error)}): "
            "delete it to start again, or name another file"
        ) from error
    found = content.pop("format", None)
    if type(found) is int and found > FORMAT:
        raise CorruptFileError(
            f"checkpoint {path} has format {found}, this version reads up to {FORMAT}: upgrade "
            "agflow"
        )
    if found not in (EARLIER_FORMAT, FORMAT):
        raise CorruptFileError(
            f"checkpoint {path} is of another format than {FORMAT}: delete it to start again"
        )
    if digest != metadata.get("sha256"):
        raise CorruptFileError(
            f"checkpoint {path} is damaged: its checksum does not hold; delete it to start again"
        )
    for name in ("run", "progress"):
        if not isinstance(content.get(name), dict):
            raise CorruptFileError(
                f"checkpoint {path} is damaged: it has no {name}; delete it to start again"
            )
    return content, tensors


def remove_if_damaged(path: pathlib.Path) -> None:
    """Remove a file that cannot be read, so that the training begins anew.

    For a checkpoint that only agflow knows of: nobody could be asked.
    """
    if path.exists():
        try:
            read(path)
        except CorruptFileError:
            path.unlink()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
