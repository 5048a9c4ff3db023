"""A session of ONNX Runtime over one exported file, for callers with and without torch.

Nothing here imports torch, and onnxruntime is imported where a session is made. Shape suffixes: B
images of a call, N images of a pass, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import TYPE_CHECKING, Any

from agflow._utils.onnx_passes import OnnxPasses, first_line
from agflow.errors import (
    CorruptFileError,
    DtypeError,
    EmptyError,
    InvalidValueError,
    ShapeError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

METADATA_KEY = "agflow"
"""The name of our JSON text among the metadata of an ONNX file."""
LOGITS = "logits"
_FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64"}
_CHANNELS = (1, 3)
_PROBE_IMAGES = 2


def thread_count() -> int:
    """Threads of a session where none are named: OMP_NUM_THREADS, else this process's cores.

    Examples
    --------
    >>> from agflow._utils.onnx_session import thread_count
    >>> thread_count() >= 1
    True
    """
    named = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if named.isdecimal() and int(named) > 0:
        return int(named)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class OnnxSession:
    """Runs an ONNX file on the CPU: images float32 [B, C, H, W] to logits float32 [B, K].

    Files of other programs are run as far as their graph says what they take: any names, float16
    and float64, channels last, a fixed batch size; their probabilities become logarithms. Each
    image has a pass of its own (of a fixed batch size each piece of that size, the last one filled
    up), as many at a time as there are threads: so its numbers are the same in whatever batch it
    comes, those of int8 files too, whose activations are scaled by what is in the pass. Runs may
    overlap: a session has no state between them. A copy, and what is unpickled, opens the file
    again.

    Parameters
    ----------
    path : of the file
    threads : of a batch; None takes :func:`thread_count`

    Attributes
    ----------
    metadata : dict
        The JSON values that :func:`agflow.export` keeps in the file; empty for other files.
    input, output : str
        Names in the graph.
    image_size : tuple[int, int] or None
        Height and width of the images; None where the file fixes none, or takes no images.
    channels, classes : int or None
        As far as the file says.
    batch : int or None
        The only batch size that the graph takes; None for any.
    runtime : str
        Such as ``"onnxruntime 1.32.0"``.

    Raises
    ------
    InvalidValueError
        onnxruntime is not installed, or ``threads`` is below 1.
    FileError, CorruptFileError
        The file cannot be read, or is no ONNX model.
    UnsupportedModelError
        onnxruntime cannot run the graph, or it does not map one batch of float images to logits.
    """

    def __init__(self, path: str | os.PathLike, threads: int | None = None):
        self.path = pathlib.Path(path)
        self.threads = thread_count() if threads is None else threads
        if type(self.threads) is not int or self.threads < 1:
            raise InvalidValueError(f"threads is {threads!r}, expected an integer of at least 1")
        self._passes = OnnxPasses(self.path, self.threads)
        session, self.runtime = self._passes.session, self._passes.runtime
        self.metadata = _metadata(session, self.path)
        inlet, outlet = _inlet(session, self.path), _outlet(session, self.path)
        self.input, self.output = inlet.name, outlet.name
        self.dtype = _FLOATS[inlet.type]
        self.batch = inlet.shape[0] if type(inlet.shape[0]) is int else None
        self._shape = list(inlet.shape)
        self.channels_last = _is_channels_last(inlet.shape)
        self.channels, self.image_size = self._image_shape()
        self._is_probability = False
        self.classes = self._probe()

    def __reduce__(self) -> tuple:
        return type(self), (self.path, self.threads)

    @property
    def takes_images(self) -> bool:
        """Whether the input is [B, C, H, W]; a part behind a shared prefix takes tokens."""
        return len(self._shape) == 4

    def run(self, values: np.ndarray) -> np.ndarray:
        """Return the output, float32 [B, …], of a batch of images, float [B, C, H, W].

        Raises
        ------
        EmptyError, DtypeError, ShapeError
            There is no image, or the array is not of floats or does not fit the file.
        """
        import numpy as np

        values = self._checked(np.asarray(values))
        if self.channels_last:
            values = values.transpose(0, 2, 3, 1)
        values = np.ascontiguousarray(values, dtype=self.dtype)
        size = self.batch or 1
        pieces = [values[at : at + size] for at in range(0, len(values), size)]
        found = np.concatenate(self._passes.run(self._filled_pass, pieces))
        found = found.astype(np.float32, copy=False)
        if self._is_probability:
            found = np.log(np.maximum(found, np.finfo(np.float32).tiny))
        return found

    def _filled_pass(self, session: onnxruntime.InferenceSession, piece: np.ndarray) -> np.ndarray:
        """The output of a piece that may be smaller than the graph's batch."""
        import numpy as np

        missing = self.batch - len(piece) if self.batch else 0
        filled = np.concatenate([piece, np.repeat(piece[-1:], missing, 0)]) if missing else piece
        return self._pass(session, filled)[: len(piece)]

    def _pass(self, session: onnxruntime.InferenceSession, values: np.ndarray) -> np.ndarray:
        import numpy as np

        try:
            (found,) = session.run([self.output], {self.input: values})
            found = np.asarray(found)
        except Exception as error:  # onnxruntime raises kinds of its own
            raise UnsupportedModelError(
                f"{self.path}: onnxruntime cannot run it on values {list(values.shape)}: "
                f"{first_line(error)}"
            ) from error
        if found.shape[:1] != values.shape[:1]:
            raise UnsupportedModelError(
                f"{self.path}: output {self.output} is {list(found.shape)} for {len(values)} "
                "images, expected a row for each image"
            )
        return found

    def _checked(self, values: np.ndarray) -> np.ndarray:
        if values.dtype.kind != "f":
            raise DtypeError(
                f"{self.path}: images are of {values.dtype}, expected floats as its preprocessing "
                "makes them"
            )
        channels_size = (self.channels, *(self.image_size or (None, None)))
        expected = channels_size if self.takes_images else tuple(self._shape[1:])
        fits = values.ndim == len(expected) + 1 and all(
            type(right) is not int or found == right
            for found, right in zip(values.shape[1:], expected, strict=True)
        )
        if not fits:
            text = ", ".join(str(n) if type(n) is int else "any" for n in ("B", *expected))
            raise ShapeError(
                f"{self.path}: its input {self.input} was given {list(values.shape)}, expected "
                f"[{text.replace('any', 'B', 1)}]"
            )
        if not len(values):
            raise EmptyError(f"{self.path}: there is no image to run it on")
        return values

    def _image_shape(self) -> tuple[int | None, tuple[int, int] | None]:
        """Channels, and height and width, of the graph or else of the metadata."""
        if not self.takes_images:
            return None, None
        channels, *size = self._shape[1:]
        if self.channels_last:
            *size, channels = self._shape[1:]
        noted = self.metadata.get("image_size")
        if not all(type(n) is int for n in size):
            size = noted if isinstance(noted, list) else []
        height_width = (int(size[0]), int(size[1])) if len(size) == 2 else None
        return channels if type(channels) is int else None, height_width

    def _probe(self) -> int | None:
        """Number of classes, of a pass over noise, which shows whether the rows are probabilities.

        None where the size of the images is not known, or the output is none of classes.
        """
        import numpy as np

        sides = (self.channels, *(self.image_size or (None,)))
        shape = [n for n in (sides if self.takes_images else self._shape[1:]) if type(n) is int]
        if len(shape) < len(self._shape) - 1:
            return None
        noise = np.random.default_rng(0).standard_normal([_PROBE_IMAGES, *shape], np.float32)
        found = self.run(noise)
        if found.ndim != 2:
            return None
        sums = found.sum(1)
        # What agflow exported gives what its model gives; only strangers' outputs are guessed.
        is_foreign = not self.metadata
        self._is_probability = is_foreign and bool(
            found.min() >= 0 and np.abs(sums - 1).max() < 1e-3
        )
        return found.shape[1]


def _metadata(session: onnxruntime.InferenceSession, path: pathlib.Path) -> dict[str, Any]:
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CorruptFileError(
            f"{path}: its metadata {METADATA_KEY} is no JSON object: export the model again"
        )
    return found


def _inlet(session: onnxruntime.InferenceSession, path: pathlib.Path) -> onnxruntime.NodeArg:
    inlets = session.get_inputs()
    listed = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inlets) or "none"
    tokens = len(inlets) == 1 and inlets[0].name == "tokens"
    if len(inlets) != 1 or inlets[0].type not in _FLOATS or len(inlets[0].shape) != 4 - tokens:
        raise UnsupportedModelError(
            f"{path}: its inputs are {listed}, expected a single one of floats "
            "[batch, channels, height, width]: export the model alone, with its normalised images "
            "as input"
        )
    return inlets[0]


def _outlet(session: onnxruntime.InferenceSession, path: pathlib.Path) -> onnxruntime.NodeArg:
    """The output named logits, or the only one, or the only one that may be logits."""
    outlets = session.get_outputs()
    named = [outlet for outlet in outlets if outlet.name == LOGITS]
    tables = [o for o in outlets if o.type in _FLOATS and len(o.shape) == 2]
    found = next((few for few in (named, outlets, tables) if len(few) == 1), None)
    if found is None or found[0].type not in _FLOATS:
        listed = ", ".join(f"{o.name} {o.type} {o.shape}" for o in outlets)
        raise UnsupportedModelError(
            f"{path}: its outputs are {listed}, expected a single one of floats [batch, classes], "
            f"or one that is named {LOGITS}"
        )
    return found[0]


def _is_channels_last(shape: list) -> bool:
    return len(shape) == 4 and shape[3] in _CHANNELS and shape[1] not in _CHANNELS
