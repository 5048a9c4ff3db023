"""Raw activations, gradients and weights as Arrow files, for ``agflow statistics``."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import torch

from agflow._core import arrow
from agflow._core.loader import core
from agflow.errors import FileError
from agflow.models import ChannelGroup


class TensorFolder:
    """A folder of tensor files: ``batch-0000.arrow``, … and, last of all, ``weights.arrow``.

    A batch has one row per image and the columns ``<layer>.y`` and ``<layer>.g``, [T, C] as
    ``arrow.fixed_shape_tensor``; the weights file has one row and the columns ``<layer>.w0``,
    ``<layer>.w1``, …. Values are float32, float64 or float16; Arrow has no bfloat16, so these are
    uint16 and the field's metadata says ``agflow.dtype=bfloat16``.

    Raises
    ------
    FileError
        The folder cannot be made or already holds tensor files.
    """

    def __init__(self, folder: str | os.PathLike, metadata: dict[str, str]):
        self._folder, self._metadata, self._batches = pathlib.Path(folder), metadata, 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(
                f"dump folder {folder} cannot be made: {error.strerror or error}; choose another"
            ) from error
        if any(self._folder.glob("*.arrow")):
            raise FileError(
                f"dump folder {folder} already holds Arrow files, which would mix with the new "
                "ones; choose an empty folder"
            )

    def write_batch(
        self, pairs: Iterable[tuple[ChannelGroup, int, torch.Tensor, torch.Tensor]]
    ) -> None:
        """Write (layer, images, Y [R, C], G [R, C]) of one batch."""
        columns = [
            column
            for layer, images, y_RC, g_RC in pairs
            for column in (_column(layer, "y", y_RC, images), _column(layer, "g", g_RC, images))
        ]
        self._write(f"batch-{self._batches:04d}", columns, {})
        self._batches += 1

    def write_weights(
        self,
        weights: Iterable[tuple[ChannelGroup, int, int, torch.Tensor]],
        metadata: dict[str, str],
    ) -> None:
        """Write the weights of all layers, with metadata that is known at the end only.

        Parameters
        ----------
        weights : (layer, number within the layer, unit axis, weight [R, C])
        """
        columns = [
            _column(layer, f"w{number}", weight_RC, 1, unit_axis)
            for layer, number, unit_axis, weight_RC in weights
        ]
        self._write("weights", columns, metadata)

    def _write(
        self, name: str, columns: list[tuple[pa.Field, pa.Array]], metadata: dict[str, str]
    ) -> None:
        schema = pa.schema(
            [field for field, _ in columns],
            metadata={"agflow.kind": "tensor", **self._metadata, **metadata},
        )
        batch = pa.RecordBatch.from_arrays([array for _, array in columns], schema=schema)
        arrow.call(core().write_file, os.fspath(self._folder / f"{name}.arrow"), batch)


def _column(
    layer: ChannelGroup,
    role: str,
    tensor_RC: torch.Tensor,
    rows: int,
    unit_axis: int | None = None,
) -> tuple[pa.Field, pa.Array]:
    """A column of ``rows`` tensors over the memory of ``tensor_RC``, which lies on the CPU."""
    shape = [len(tensor_RC) // rows, tensor_RC.shape[1]]
    bfloat16 = tensor_RC.dtype is torch.bfloat16
    # By way of int16: torch 2.2 has no uint16.
    flat = tensor_RC.view(torch.int16).numpy().view(np.uint16) if bfloat16 else tensor_RC.numpy()
    values = pa.array(flat.reshape(-1))
    array = pa.FixedSizeListArray.from_arrays(values, shape[0] * shape[1])
    metadata = {
        "ARROW:extension:name": "arrow.fixed_shape_tensor",
        "ARROW:extension:metadata": json.dumps({"shape": shape, "dim_names": ["token", "channel"]}),
        "agflow.layer": layer.name,
        "agflow.group": layer.kind,
        "agflow.role": role[0],
        "agflow.units": str(layer.units),
        "agflow.unit_width": str(layer.unit_width),
        "agflow.parts": str(layer.parts),
        "agflow.unit_macs": str(layer.unit_macs),
        "agflow.unit_params": str(layer.unit_params),
    }
    if unit_axis is not None:
        metadata["agflow.unit_axis"] = str(unit_axis)
    if bfloat16:
        metadata["agflow.dtype"] = "bfloat16"
    return pa.field(f"{layer.name}.{role}", array.type, metadata=metadata), array
