"""Passes of ONNX Runtime over the pieces of a batch, one thread a piece.

On a CPU this is the fastest way there is: what a layer writes for one image stays in the cache, and
images in parallel need not wait for each other within a layer. Measured, DeiT-Tiny on two
processors: int8 111 images/s where one pass over 32 images with two threads gave 69, float32 83
where it gave 59. Nothing here imports torch, and onnxruntime is imported where a session is made.
"""

from __future__ import annotations

import os
import pathlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from agflow.errors import CorruptFileError, FileError, InvalidValueError, UnsupportedModelError

if TYPE_CHECKING:
    import onnxruntime

Piece = TypeVar("Piece")
Found = TypeVar("Found")


class OnnxPasses:
    """Runs pieces of a batch, as many at a time as there are threads.

    A batch of one piece has all threads, in a second session over the same file, which is opened
    when the first such batch comes. Calls may overlap.

    Parameters
    ----------
    path : of the file
    threads : of a batch, at least 1

    Attributes
    ----------
    session : onnxruntime.InferenceSession
        The one with one thread.
    runtime : str
        Such as ``"onnxruntime 1.32.0"``.

    Raises
    ------
    InvalidValueError
        onnxruntime is not installed.
    FileError, CorruptFileError, UnsupportedModelError
        There is no such file, it is no ONNX model, or onnxruntime cannot run it.
    """

    def __init__(self, path: pathlib.Path, threads: int):
        self._path, self._threads = path, threads
        self.session, self.runtime = _session(path, 1)
        self._with_all_threads = self.session if threads == 1 else None
        self._workers = ThreadPoolExecutor(threads, "onnx") if threads > 1 else None
        self._opening = threading.Lock()

    def run(
        self,
        work: Callable[[onnxruntime.InferenceSession, Piece], Found],
        pieces: Sequence[Piece],
    ) -> list[Found]:
        """What ``work`` returns for each piece, in their order."""
        if len(pieces) == 1:
            return [work(self._alone(), pieces[0])]
        if self._workers is None:
            return [work(self.session, piece) for piece in pieces]
        return list(self._workers.map(lambda piece: work(self.session, piece), pieces))

    def _alone(self) -> onnxruntime.InferenceSession:
        with self._opening:
            if self._with_all_threads is None:
                self._with_all_threads, _ = _session(self._path, self._threads)
            return self._with_all_threads


def first_line(error: Exception) -> str:
    """The first line of an error of onnxruntime, without its number, its kind and the path."""
    line = str(error).strip().partition("\n")[0].split(" : ", 3)[-1]
    return line.rpartition(" failed:")[2][:300]


def _session(path: pathlib.Path, threads: int) -> tuple[onnxruntime.InferenceSession, str]:
    try:
        import onnxruntime
    except ImportError as error:
        raise InvalidValueError(
            f"{path} needs onnxruntime, which this Python cannot import ({error}): "
            "pip install onnxruntime"
        ) from error
    if not path.is_file():
        raise FileError(f"{path} is no file, expected an ONNX model such as light.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # errors are raised; its log would only say them twice
    # Threads that spin after their pass take the cores from the next expert's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises kinds of its own
        if type(error).__name__ in ("InvalidProtobuf", "NoSuchFile", "InvalidGraph"):
            raise CorruptFileError(
                f"{path} is damaged or no ONNX model: {first_line(error)}"
            ) from error
        raise UnsupportedModelError(
            f"{path}: onnxruntime {onnxruntime.__version__} cannot run it: {first_line(error)}"
        ) from error
    return session, f"onnxruntime {onnxruntime.__version__}"
