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
from agflow._utils.folders import sha256_of
from agflow._utils.onnx_session import OnnxSession
from agflow.cascade.file_names import ROUTER_FILE
from agflow.data.preprocessing import Preprocessing
from agflow.errors import CorruptFileError, DeviceError, InvalidValueError, ShapeError
from agflow.exporting.folder import (
    CLASS_NAMES,
    COSTS,
    ENDINGS,
    EXPORT_FOLDER,
    FILES,
    HEAVY_ROLE,
    LIGHT_ROLE,
    MAX_BATCH,
    PREFIX_ROLE,
)
from agflow.serving.experts import ServedCosts

_SAVE_AGAIN = "export the cascade again"


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
        about = EXPORT_FOLDER.read(folder)
        _check_digests(folder, about.get("sha256", {}))
        self._sessions = {
            role: OnnxSession(folder / file, threads)
            for role, file in _files(folder, about[FILES]).items()
        }
        first = self._sessions.get(PREFIX_ROLE, self._sessions[HEAVY_ROLE])
        self._tokens_B: np.ndarray | None = None
        self.runtime, self.runtime_version = first.runtime.split(" ", 1)
        self.device, self.threads = "cpu", first.threads
        self.max_batch, self.class_names = about.get(MAX_BATCH), about.get(CLASS_NAMES)
        self.preprocessing = _preprocessing(first)
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
    for at in np.ndindex(found.shape[:2]):
        plane = Image.fromarray(images_BCHW[at])
        found[at] = plane.resize(size[::-1], Image.Resampling.BILINEAR)
    return found


def _check_digests(folder: pathlib.Path, listed: dict[str, str]) -> None:
    for name, digest in listed.items():
        path = folder / name
        if not path.is_file() or sha256_of(path) != digest:
            state = "damaged" if path.is_file() else "missing"
            raise CorruptFileError(
                f"{path} is {state}: {EXPORT_FOLDER.marker} lists another content; copy or "
                f"{_SAVE_AGAIN}"
            )


def _files(folder: pathlib.Path, entries: Any) -> dict[str, str]:
    """The file of each role: a prefix where the experts share one, light and heavy."""
    names = [entry.get("file") for entry in entries if isinstance(entry, dict)]
    found = {name.partition(".")[0]: name for name in names if isinstance(name, str)}
    if {LIGHT_ROLE, HEAVY_ROLE} - set(found) or set(found) - {LIGHT_ROLE, HEAVY_ROLE, PREFIX_ROLE}:
        raise CorruptFileError(
            f"files in {folder / EXPORT_FOLDER.marker} are {', '.join(map(str, names)) or 'none'}, "
            f"expected those of a light and of a heavy expert: {_SAVE_AGAIN}"
        )
    others = [name for name in found.values() if not name.endswith(ENDINGS["onnx"])]
    if others:
        raise InvalidValueError(
            f"{folder / others[0]} is no ONNX file, expected one: {_SAVE_AGAIN} with "
            "format='onnx', or serve the folder that it was exported from"
        )
    return found


def _preprocessing(session: OnnxSession) -> Preprocessing | None:
    values = session.metadata.get("preprocessing")
    if values is None:
        return None
    try:
        return Preprocessing.from_dict(values)
    except (TypeError, KeyError, AttributeError, InvalidValueError) as error:
        raise CorruptFileError(
            f"preprocessing in {session.path} is damaged ({error}): {_SAVE_AGAIN}"
        ) from error


def _shape(session: OnnxSession, preprocessing: Preprocessing | None) -> tuple[int, int, int]:
    if preprocessing is not None:
        return preprocessing.channels, *preprocessing.input_size
    if session.channels is None or session.image_size is None:
        raise ShapeError(f"{session.path} does not say what size its images have: {_SAVE_AGAIN}")
    return session.channels, *session.image_size


def _costs(folder: pathlib.Path, about: dict[str, Any]) -> ServedCosts:
    """Those of the export, or of the router's calibration in an older one."""
    if COSTS in about:
        return ServedCosts(
            **{name: about[COSTS][name] for name in ("light", "heavy", "shared", "unit")}
        )
    of = json.loads(core().read_router(str(folder / ROUTER_FILE)))["ledger"]
    return ServedCosts(of["light_cost"], of["heavy_cost"], of["shared_cost"], of["cost_unit"])
