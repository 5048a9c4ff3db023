"""A cascade as the Go server calls it: memory in, memory out; routing itself is Go's.

Shape suffixes: B images of a batch, E escalated ones, C, H, W of an image, K classes.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from agflow.data.decoding import open_image
from agflow.data.opening import reason
from agflow.errors import (
    AgflowError,
    ClosedError,
    InvalidValueError,
    NonFiniteError,
)
from agflow.serving.buffers import images_of, rows_of, written_array
from agflow.serving.experts import Experts


class ServedCascade:
    """Both experts of a cascade behind buffers that belong to the caller.

    :meth:`prepare` may be called from several threads at once; :meth:`light`, :meth:`heavy` and
    :meth:`close` from one at a time. Results are, bit for bit, those of a call of
    :class:`agflow.Cascade` on the same batch.

    Parameters
    ----------
    experts : in any runtime
    name : of the cascade's folder
    revision : changes with any file of the folder
    router : the content of router.json

    Examples
    --------
    >>> import agflow, json, numpy as np, tempfile, torch
    >>> heavy, preprocessing, _ = agflow.load_model("example")
    >>> light = agflow.models.at_image_size(heavy, 20)
    >>> batches = [(torch.rand(8, 1, 28, 28), torch.arange(8))]
    >>> router = agflow.calibrate_router(agflow.predict(light, heavy, batches), escalation=0.9)
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     cascade = agflow.Cascade(light, heavy, router)
    ...     agflow.save(cascade, f"{scratch}/cascade", preprocessing=preprocessing)
    ...     options = {"folder": f"{scratch}/cascade", "max_batch": 4}
    ...     served = agflow.serving.open_cascade(json.dumps(options))
    >>> logits = bytearray(4 * 2 * 10)
    >>> served.light(memoryview(bytes(4 * 2 * 28 * 28)), memoryview(logits))
    >>> bool(np.isfinite(np.frombuffer(logits, np.float32)).all())
    True
    """

    def __init__(self, experts: Experts, name: str, revision: str, router: dict[str, Any]):
        self._experts: Experts | None = experts
        self._name, self._revision, self._router = name, revision, router
        self._batch = 0  # images of the last light batch

    def describe(self, _: str = "") -> str:
        """JSON of what is served: its name, runtime, image shape, classes, router and costs."""
        experts = self._open()
        channels, height, width = experts.shape
        return json.dumps(
            {
                "name": self._name,
                "revision": self._revision,
                "runtime": experts.runtime,
                "runtime_version": experts.runtime_version,
                "channels": channels,
                "height": height,
                "width": width,
                "classes": experts.classes,
                "class_names": experts.class_names,
                "max_batch": experts.max_batch,
                "router": self._router,
                "light_cost": experts.costs.light,
                "heavy_cost": experts.costs.heavy,
                "shared_cost": experts.costs.shared,
                "cost_unit": experts.costs.unit,
                "device": experts.device,
                "threads": experts.threads,
            }
        )

    def prepare(self, encoded: memoryview, out: memoryview) -> None:
        """Decode and prepare one image as ``agflow predict`` does that of a file.

        Parameters
        ----------
        encoded : bytes of an image file
        out : float32 [C, H, W] that is written to

        Raises
        ------
        InvalidValueError
            The image cannot be decoded, or the cascade was saved without a preprocessing.
        ShapeError
            ``out`` has another size.
        """
        experts = self._open()
        if experts.preprocessing is None:
            raise InvalidValueError(
                f"the cascade {self._name} holds no preprocessing, by which image files become "
                "its input: save or export it with preprocessing=, or send tensors"
            )
        image_CHW = written_array(out, experts.shape, "prepared image")
        # Decoders raise whatever a broken file makes them run into, a MemoryError among others.
        try:
            with io.BytesIO(encoded) as file, open_image(file) as image:
                experts.preprocessing.prepare(image, image_CHW)
        except AgflowError:
            raise
        except Exception as error:
            raise InvalidValueError(
                f"the image cannot be decoded ({reason(error)}): send the whole file of an image"
            ) from error

    def light(self, images: memoryview, out: memoryview) -> None:
        """Run the light expert, and the shared prefix before it, whose tokens are kept.

        Parameters
        ----------
        images : float32 [B, C, H, W], B by its size
        out : logits, float32 [B, K], that are written to

        Raises
        ------
        ShapeError
            A size does not fit.
        NonFiniteError
            A logit is NaN or infinite.
        """
        experts = self._open()
        images_BCHW = images_of(images, experts.shape)
        logits_BK = written_array(out, (len(images_BCHW), experts.classes), "logits")
        self._batch = 0  # until its tokens are there
        logits_BK[:] = _finite(experts.light(images_BCHW), "light")
        self._batch = len(images_BCHW)

    def heavy(self, images: memoryview, rows: memoryview, out: memoryview) -> None:
        """Run the heavy expert on images that escalated.

        Parameters
        ----------
        images : float32 [E, C, H, W]
        rows : int32 [E], their places in the last light batch
        out : logits, float32 [E, K], that are written to

        Raises
        ------
        ShapeError, InvalidValueError
            A size does not fit, or a row is none of the last light batch.
        NonFiniteError
            A logit is NaN or infinite.
        """
        experts = self._open()
        images_ECHW = images_of(images, experts.shape)
        rows_E = rows_of(rows, len(images_ECHW), self._batch)
        logits_EK = written_array(out, (len(images_ECHW), experts.classes), "logits")
        logits_EK[:] = _finite(experts.heavy(images_ECHW, rows_E), "heavy")

    def close(self, _: str = "") -> None:
        """Let go of the experts; again: no effect."""
        self._experts = None

    def _open(self) -> Experts:
        if self._experts is None:
            raise ClosedError(f"the cascade {self._name} is closed: open it again")
        return self._experts


def _finite(logits_NK: np.ndarray, expert: str) -> np.ndarray:
    rows = np.flatnonzero(~np.isfinite(logits_NK).all(1))
    if len(rows):
        raise NonFiniteError(
            f"the {expert} expert's logits of image {rows[0]} of {len(logits_NK)} are NaN or "
            "infinite, expected finite ones: check that image for such values"
        )
    return logits_NK
