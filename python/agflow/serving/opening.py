"""Opening a folder of a cascade for the server, in the runtime that the folder is for."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Any

from agflow._core.loader import core
from agflow._utils.files import read_bytes
from agflow._utils.json_file import MAX_JSON_BYTES, parse_object
from agflow.cascade.file_names import CASCADE_FILE, EXPORT_FILE, ROUTER_FILE
from agflow.errors import FileError, InvalidValueError
from agflow.serving.experts import Experts, warm_up
from agflow.serving.served_cascade import ServedCascade

_OPTIONS = {"folder": str, "device": str, "threads": int, "model": (str, dict), "max_batch": int}
_REVISION_DIGITS = 12


def open_cascade(options_json: str) -> ServedCascade:
    """Load a cascade for the server and run its first passes.

    A folder of :func:`agflow.save` runs in PyTorch. One of
    :func:`agflow.exporting.export_cascade` runs in ONNX Runtime, and neither torch nor timm nor
    pyarrow is imported for it.

    Parameters
    ----------
    options_json : JSON object; only ``folder`` is needed, and null stands for the default

        ========= ==========================================================================
        folder    path of the cascade's folder
        device    as torch names it; cpu by default
        threads   of a pass; by default the runtime's own number
        model     of :func:`agflow.load`, for experts of the user's own: ``"module:function"``
        max_batch the largest batch that will come, which is tried at the start
        ========= ==========================================================================

    Raises
    ------
    InvalidValueError
        An option is unknown or none that can be.
    FileError, CorruptFileError
        The folder is none of a cascade, or a file of it is missing or damaged.
    DeviceError
        Nothing can be computed on the device.

    Examples
    --------
    >>> import agflow, json
    >>> agflow.serving.open_cascade(json.dumps({"folder": "nowhere"}))
    Traceback (most recent call last):
    ...
    agflow.errors.FileError: nowhere holds neither cascade.json nor export.json, expected ...
    """
    options = _read(options_json)
    folder = pathlib.Path(options["folder"])
    marker = next((m for m in (CASCADE_FILE, EXPORT_FILE) if (folder / m).exists()), None)
    if marker is None:
        raise FileError(
            f"{folder} holds neither {CASCADE_FILE} nor {EXPORT_FILE}, expected a folder "
            "made by agflow.save or agflow.exporting.export_cascade"
        )
    content = read_bytes(folder / marker, "file", MAX_JSON_BYTES)
    experts = _experts(marker, folder, options)
    router = json.loads(core().read_router(str(folder / ROUTER_FILE)))
    warm_up(experts, options.get("max_batch"))
    revision = hashlib.sha256(content).hexdigest()[:_REVISION_DIGITS]
    return ServedCascade(experts, folder.resolve().name, revision, router)


def _experts(marker: str, folder: pathlib.Path, options: dict[str, Any]) -> Experts:
    how = tuple(map(options.get, ("device", "threads", "model")))
    if marker == CASCADE_FILE:
        from agflow.serving.torch_experts import TorchExperts  # torch

        return TorchExperts(folder, *how)
    from agflow.serving.onnx_experts import OnnxExperts

    return OnnxExperts(folder, *how)


def _read(options_json: str) -> dict[str, Any]:
    """The options that have a value."""
    given = parse_object(options_json.encode(), "the options of a served cascade")
    options = {name: value for name, value in given.items() if value not in (None, "")}
    for name, value in options.items():
        if name not in _OPTIONS:
            raise InvalidValueError(f"option {name!r} is unknown, expected {', '.join(_OPTIONS)}")
        kind = _OPTIONS[name]
        if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and value < 1):
            raise InvalidValueError(
                f"option {name} is {value!r:.60}, expected "
                + ("a whole number from 1" if kind is int else "a text")
            )
    if "folder" not in options:
        raise InvalidValueError("option folder is missing: give the path of a cascade's folder")
    return options
