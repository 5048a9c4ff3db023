"""The files of ``agflow decide``, which routes the logits of experts that run elsewhere: neither needs torch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from agflow.errors import ShapeError
from agflow.table import Table


class Logits(Table):
    """Logits of images through one expert: one row an image, column logits [K] of float32, float64 or float16.

    The column is an ``arrow.fixed_shape_tensor``.
    """

    kind = "logits"

    @classmethod
    def of(cls, logits_NK: Any) -> Logits:
        """A table of logits [N, K]: a numpy array or what numpy can read, of float32, float64 or float16.

        Raises
        ------
        ShapeError
            The values have not two dimensions, or no classes.
        """
        values = np.ascontiguousarray(logits_NK)
        if values.ndim != 2 or values.shape[1] < 1:
            raise ShapeError(
                f"logits: the shape is {values.shape}, expected (images, classes): reshape it first"
            )
        classes = values.shape[1]
        column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), classes)
        extension = {
            "ARROW:extension:name": "arrow.fixed_shape_tensor",
            "ARROW:extension:metadata": json.dumps({"shape": [classes]}),
        }
        schema = pa.schema(
            [pa.field("logits", column.type, metadata=extension)], {"agflow.kind": cls.kind}
        )
        return cls(pa.RecordBatch.from_arrays([column], schema=schema))


class Decisions(Table):
    """What a router makes of images: one row each, in the order of their logits.

    Columns: index int64, prediction int64, prior float32, escalate bool. Where metadata agflow.answers is "heavy" or
    "both", the predictions are the cascade's answers; without it they are the light expert's.
    """

    kind = "decisions"

    @property
    def escalated(self) -> np.ndarray:
        """Indices of the images that escalate, ascending int64."""
        return np.flatnonzero(self.columns["escalate"])
