"""The experts of an exported cascade, in ONNX Runtime: numpy, Pillow and onnxruntime are enough.

Shape suffixes: B images of a batch, E escalated ones, C, H, W of an image, K classes.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from agflow._core.loader import core
from agflow._utils.onnx_session import OnnxSession
from agflow.cascade.export_file import read_export
from agflow.cascade.file_names import (
    CLASS_NAMES,
    COSTS,
    ENDINGS,
    HEAVY_ROLE,
    LIGHT_ROLE,
    MAX_BATCH,
    PREFIX_ROLE,
    ROUTER_FILE,
)
from agflow.cascade.ledger import CascadeCosts
from agflow.data.exported_preprocessing import file_preprocessing
from agflow.data.preprocessing import Preprocessing
from agflow.errors import DeviceError, InvalidValueError, ShapeError


class OnnxExperts:
    """Both experts of an export; see :class:`agflow.serving.experts.Experts`.

    Parameters
    ----------
    threads : of a pass; None takes those of :class:`agflow._utils.onnx_session.OnnxSession`
    """

    def __init__(self, folder: pathlib.Path, device: str | None, threads: int | None, model: Any):
        if device not in (None, "cpu"):
            raise DeviceError(
                f"device is {device!r}, expected cpu: {folder} is an exported cascade, which runs "
                "by ONNX Runtime on the CPU; serve the folder that it was exported from"
            )
        if model is not None:
            raise InvalidValueError(
                f"{folder} is an exported cascade, whose files hold all of its models: leave model "
                "out"
            )
        files, about = read_export(folder)
        others = [name for name in files.values() if not name.endswith(ENDINGS["onnx"])]
        if others:
            raise InvalidValueError(
                f"{folder / others[0]} is no ONNX file, expected one: export the cascade again "
                "with format='onnx', or serve the folder that it was exported from"
            )
        self._sessions = {role: OnnxSession(folder / file, threads) for role, file in files.items()}
        first = self._sessions.get(PREFIX_ROLE, self._sessions[HEAVY_ROLE])
        self._tokens_B: np.ndarray | None = None
        self.runtime, self.runtime_version = first.runtime.split(" ", 1)
        self.device, self.threads = "cpu", first.threads
        self.max_batch, self.class_names = about.get(MAX_BATCH), about.get(CLASS_NAMES)
        self.preprocessing = file_preprocessing(first.path, first.metadata)
        self.shape = _shape(first, self.preprocessing)
        self.classes = self.light(np.zeros((1, *self.shape), np.float32)).shape[1]
        self.costs = _costs(folder, about)

    def light(self, images_BCHW: np.ndarray) -> np.ndarray:
        """The light logits, float32 [B, K]."""
        taken_B, prefix = images_BCHW, self._sessions.get(PREFIX_ROLE)
        if prefix is not None:
            taken_B = self._tokens_B = self._run(prefix, images_BCHW)
        return self._run(self._sessions[LIGHT_ROLE], taken_B)

    def heavy(self, images_ECHW: np.ndarray, rows_E: np.ndarray) -> np.ndarray:
        """The heavy logits, float32 [E, K], of images at these rows of the last light batch."""
        taken_E = images_ECHW if self._tokens_B is None else self._tokens_B[rows_E]
        return self._run(self._sessions[HEAVY_ROLE], taken_E)

    def _run(self, session: OnnxSession, taken_B: np.ndarray) -> np.ndarray:
        if session.image_size is not None:
            taken_B = shrunk(taken_B, session.image_size)
        size = self.max_batch or len(taken_B)
        pieces = [session.run(taken_B[at : at + size]) for at in range(0, len(taken_B), size)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def shrunk(images_BCHW: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Images resized bilinear and antialiased; those of the size are returned as they are.

    An older export has a light expert that takes smaller images than the heavy one. Pillow computes
    in float64 what torch's ``interpolate(antialias=True)`` does in float32.

    Parameters
    ----------
    images_BCHW : float32
    size : height and width

    Examples
    --------
    >>> import numpy as np
    >>> from agflow.serving.onnx_experts import shrunk
    >>> shrunk(np.ones((2, 3, 8, 8), np.float32), (4, 5)).shape
    (2, 3, 4, 5)
    """
    if images_BCHW.shape[2:] == size:
        return images_BCHW
    found = np.empty((*images_BCHW.shape[:2], *size), np.float32)
    height, width = size
    for at in np.ndindex(found.shape[:2]):
        plane = Image.fromarray(images_BCHW[at])
        found[at] = np.asarray(plane.resize((width, height), Image.Resampling.BILINEAR))
    return found


def _shape(session: OnnxSession, preprocessing: Preprocessing | None) -> tuple[int, int, int]:
    if preprocessing is not None:
        return preprocessing.channels, *preprocessing.input_size
    if session.channels is None or session.image_size is None:
        raise ShapeError(
            f"{session.path} does not say what size its images have: export the cascade again"
        )
    return session.channels, *session.image_size


def _costs(folder: pathlib.Path, about: dict[str, Any]) -> CascadeCosts:
    """Those of the export, or of the router's calibration in an older one."""
    if COSTS in about:
        of = about[COSTS]
        return CascadeCosts(of["light"], of["heavy"], of["shared"], unit=of["unit"])
    of = json.loads(core().read_router(str(folder / ROUTER_FILE)))["ledger"]
    return CascadeCosts(of["light_cost"], of["heavy_cost"], of["shared_cost"], unit=of["cost_unit"])
