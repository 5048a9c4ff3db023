"""Measured latencies of a model's products, from which a plan's latency is predicted."""

from __future__ import annotations

from agflow.table import Table


class LatencyTable(Table):
    """Times of a model's products on one device, one row a measurement.

    Made by ``agflow bench layers``. A plan's latency is predicted from it, without building the
    pruned model: that takes the time of the dense model in the proportion in which its products
    together get faster.

    Columns: kind (utf8: ``"linear"``, ``"convolution"``, ``"attention"``, ``"pointwise"`` or
    ``"norm"``), rows (int64: tokens of an image, or positions of a convolution's result), shape
    (utf8: names the dense sizes, ``"linear 197x192x768"``), inputs, outputs, heads (int64: the
    sizes measured, 0 where the kind has none; of a convolution the inputs and outputs of one group,
    and the groups), ms (float64: milliseconds
    a batch). The rows of a shape form one full grid up to its dense sizes, which is interpolated
    linearly and never falls towards larger sizes.

    The schema metadata has ``agflow.model``, ``agflow.batch`` (images), ``agflow.device``,
    ``agflow.threads``, ``agflow.torch`` and ``agflow.model_ms`` (milliseconds of the dense model).

    Examples
    --------
    >>> import pyarrow as pa
    >>> from agflow.pruning import LatencyTable
    >>> columns = {
    ...     "kind": ["linear"] * 2,
    ...     "rows": [1] * 2,
    ...     "shape": ["linear 1x8x10"] * 2,
    ...     "inputs": [1, 8],
    ...     "outputs": [10] * 2,
    ...     "heads": [0] * 2,
    ...     "ms": [1.0, 8.0],
    ... }
    >>> metadata = {"agflow.kind": "latency", "agflow.model": "tiny", "agflow.model_ms": "16"}
    >>> batch = pa.RecordBatch.from_pydict(columns).replace_schema_metadata(metadata)
    >>> LatencyTable(batch)
    <agflow.LatencyTable: 2 measurements of tiny, dense model 16 ms a batch>
    """

    kind = "latency"

    @property
    def model(self) -> str:
        """Name of the dense model."""
        return self.metadata["agflow.model"]

    @property
    def model_ms(self) -> float:
        """Milliseconds of the dense model for a batch."""
        return float(self.metadata["agflow.model_ms"])

    def __repr__(self) -> str:
        return (
            f"<agflow.LatencyTable: {len(self)} measurements of {self.model}, "
            f"dense model {self.model_ms:g} ms a batch>"
        )
