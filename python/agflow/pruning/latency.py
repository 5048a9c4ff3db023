"""Measured latencies of a model's products, from which a plan's latency is told without building the cut model."""

from __future__ import annotations

from agflow.table import Table


class LatencyTable(Table):
    """Times of a model's products by their shapes on one device, one row a measurement; made by ``agflow bench layers``.

    Columns: kind (utf8: ``"linear"``, ``"attention"``, ``"pointwise"`` or ``"norm"``), rows (int64: tokens of an image), shape
    (utf8: names the dense sizes, ``"linear 197x192x768"``), inputs, outputs, heads (int64: the sizes measured, 0 where the kind
    has none), ms (float64: milliseconds a batch). The rows of a shape form one full grid up to its dense sizes, which is
    read with linear interpolation between and never falls towards larger sizes.

    The schema metadata has ``agflow.model``, ``agflow.batch`` (images), ``agflow.device``, ``agflow.threads``, ``agflow.torch``
    and ``agflow.model_ms``, the milliseconds of the whole dense model; a cut model takes that in the proportion in which its
    products together get faster.
    """

    kind = "latency"

    @property
    def model_ms(self) -> float:
        """Milliseconds of the dense model for a batch."""
        return float(self.metadata["agflow.model_ms"])
