"""Tables of ``agflow decide``, which routes logits of experts that run elsewhere, without torch."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from agflow.cascade.answers import read_logits
from agflow.table import Table


class Logits(Table):
    """Logits of images by one expert, one row an image.

    Column: logits [K] of float32, float64 or float16, an ``arrow.fixed_shape_tensor``.

    Examples
    --------
    >>> import agflow, numpy
    >>> len(agflow.cascade.Logits.of(numpy.zeros((4, 10), numpy.float32)))
    4
    """

    kind = "logits"

    @classmethod
    def of(cls, logits_NK: Any) -> Logits:
        """Make the table of logits [N, K].

        Parameters
        ----------
        logits_NK : as :meth:`agflow.Predictions.of` takes them: an array or tensor of any float
            width, a list, or a table with a column a class

        Raises
        ------
        ShapeError, DtypeError, InvalidValueError
            They are no logits, or values are missing.
        """
        values = read_logits(logits_NK, "logits")
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

    def _summary(self) -> str:
        classes = self.batch.schema.field("logits").type.list_size
        return f"{len(self)} images, {classes} classes"


class Decisions(Table):
    """Decisions of a router, one row an image in the order of the logits, from ``agflow decide``.

    Columns: index int64, prediction int64, prior float32, escalate bool. The predictions are the
    cascade's answers where metadata agflow.answers is "heavy" or "ensemble"; without it they are
    the light expert's.

    Examples
    --------
    >>> import agflow, pyarrow
    >>> prior = pyarrow.array([0.9, 0.4], pyarrow.float32())
    >>> columns = {"index": [0, 1], "prediction": [7, 2], "prior": prior}
    >>> table = pyarrow.table({**columns, "escalate": [False, True]})
    >>> agflow.cascade.Decisions(table).escalated
    array([1])
    """

    kind = "decisions"

    @property
    def escalated(self) -> np.ndarray:
        """Indices of the images that escalate, ascending int64."""
        return np.flatnonzero(self.columns["escalate"])

    def _summary(self) -> str:
        return f"{len(self)} images, {len(self.escalated)} of them escalate"
