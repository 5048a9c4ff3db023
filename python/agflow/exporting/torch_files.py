"""Files of torch's ExportedProgram, which hold JSON and raw numbers and no pickle."""

from __future__ import annotations

import io
import json
import pathlib
import zipfile

import torch

from agflow.errors import UnsupportedModelError


def write_torch(program: torch.export.ExportedProgram, path: pathlib.Path, about: str) -> None:
    # By way of the memory: where the disk is full, torch's own writer ends the process.
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={"agflow.json": about})
    path.write_bytes(content.getbuffer())
    pickled = _pickled(path)
    if pickled:
        raise UnsupportedModelError(
            f"torch {torch.__version__} writes pickles into .pt2 files ({', '.join(pickled)}), "
            "and agflow writes none: use a newer torch, or format='onnx'"
        )


def _pickled(path: pathlib.Path) -> list[str]:
    """Members of a .pt2 file that torch would unpickle."""
    with zipfile.ZipFile(path) as archive:
        found = [
            member.filename
            for member in archive.infolist()
            if member.filename.endswith(".pt") and member.file_size
        ]
        for name in archive.namelist():
            if name.endswith("_config.json"):
                found += [
                    key
                    for key, value in json.loads(archive.read(name))["config"].items()
                    if value["use_pickle"]
                ]
    return found
