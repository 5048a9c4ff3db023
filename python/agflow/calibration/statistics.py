"""Per-unit sums of activations and gradients: what a calibration leaves behind, mergeable and complete."""

from __future__ import annotations

from agflow._core import arrow
from agflow._core.loader import core
from agflow.table import UnitTable


class Statistics(UnitTable):
    """Sums over calibration batches, one row per prunable unit.

    Columns: layer, group, unit, unit_width, parts, unit_macs, unit_params; rows, samples, batches
    (counts); sum_abs_yg, sum_yg, sum_yg2, sum_abs_y, sum_y, sum_y2, sum_g2, max_abs_yg (float64, Y
    the input of the reading layer or where else :func:`agflow.calibrate` sees the units, G the
    gradient of the per-image loss with respect to Y); weights, sum_abs_w, sum_w2 (of the unit's
    weights); reader_weights, sum_abs_reader, sum_reader2, sum_relative_reader (of those that read
    the unit, such as fc2; the last is Σ|w| with each |w| divided by the sum over its output's row);
    weight_gradients, sum_wg (Σ w · ∂L/∂w of the unit's weights, zero unless calibrated with
    ``weight_gradients=True``).
    """

    kind = "statistics"

    def merge(self, *others: Statistics) -> Statistics:
        """Add the sums of ``others`` in the given order: the same bits as one run over all batches in that order
        up to the rounding of one addition per shard.

        Raises
        ------
        UnknownLayerError
            The shards measure different layers.
        InvalidValueError
            The shards come from different models or weights.
        """
        merged = self
        for other in others:
            merged = Statistics(
                arrow.call_for_batch(core().statistics_merge, merged.batch, other.batch)
            )
        return merged
