"""Statistics: per-unit sums of activations and gradients, the result of a calibration."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

from agflow._core import arrow
from agflow._core.loader import core
from agflow.table import UnitTable


class Statistics(UnitTable):
    """Sums over calibration batches, one row per prunable unit.

    Y is the input of the layer that reads the units, or where else :func:`agflow.calibrate` sees
    them; G is the gradient of the per-image loss with respect to Y. Sums are float64.

    ========================================= ====================================================
    layer, group, unit                        which unit
    unit_width, parts, unit_macs, unit_params its channels of Y, the parts of its layer, its cost
    rows, samples, batches                    how many rows of Y, images and batches were summed
    sum_abs_yg, sum_yg, sum_yg2, max_abs_yg   Σ|y·g|, Σ y·g, Σ (y·g)², max |y·g|
    sum_abs_y, sum_y, sum_y2, sum_g2          Σ|y|, Σ y, Σ y², Σ g²
    weights, sum_abs_w, sum_w2                number, Σ|w| and Σ w² of the unit's weights
    reader_weights, sum_abs_reader,           the same of the weights that read the unit, such as
    sum_reader2                               fc2's
    sum_relative_reader                       Σ|w| of these, each divided by the sum of its row
    weight_gradients, sum_wg                  number and Σ w · ∂L/∂w of the unit's weights; zero
                                              without ``calibrate(…, weight_gradients=True)``
    ========================================= ====================================================

    Examples
    --------
    >>> import agflow
    >>> from torch.utils.data import DataLoader
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=32)
    >>> one, other = (agflow.calibrate(model, [batch]) for batch in DataLoader(images, 16))
    >>> one.merge(other)
    <agflow.Statistics: vit_tiny_patch16_224, 12 layers, 3096 units, 32 images, 2 batches>
    >>> utility = one["sum_abs_yg"] / one["rows"]  # criterion "agf"
    >>> utility.shape
    (3096,)
    """

    kind = "statistics"

    def merge(self, *others: Statistics) -> Statistics:
        """Add the sums of ``others``, in the given order.

        The result is that of one run over all batches in that order, up to the rounding of one
        addition per shard.

        Raises
        ------
        UnknownLayerError
            The shards measure different layers.
        InvalidValueError
            The shards come from different models or weights.
        """
        merged = self
        for other in others:
            batches = merged.batch, Statistics.of_any(other).batch
            merged = Statistics(arrow.call_for_batch(core().statistics_merge, *batches))
        return merged

    @classmethod
    def merge_files(cls, paths: Iterable[str | os.PathLike]) -> Statistics:
        """Add the sums of the files ``paths``, in the given order, as :meth:`merge` does.

        One file at a time is in memory, so that any number of files needs no more than two. A path
        that stands in ``paths`` several times counts each time.

        Raises
        ------
        EmptyError
            There are no paths.
        FileError, CorruptFileError
            A file is missing or not readable, or is damaged or of another kind.
        UnknownLayerError, InvalidValueError
            As :meth:`merge`; the message begins with the file that does not fit.

        Examples
        --------
        >>> import agflow, tempfile
        >>> from torch.utils.data import DataLoader
        >>> model, preprocessing, _ = agflow.load_model("example")
        >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=16)
        >>> shard = f"{tempfile.mkdtemp()}/shard.arrow"
        >>> agflow.calibrate(model, DataLoader(images, 16)).save(shard)
        >>> agflow.Statistics.merge_files([shard, shard])
        <agflow.Statistics: vit_tiny_patch16_224, 12 layers, 3096 units, 32 images, 2 batches>
        """
        files = json.dumps([os.fspath(path) for path in paths])
        return cls(arrow.call_for_batch(core().statistics_merge_files, files))

    def _summary(self) -> str:
        images, batches = (self.columns[name].max(initial=0) for name in ("samples", "batches"))
        return f"{super()._summary()}, {images} images, {batches} batches"
