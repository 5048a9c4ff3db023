"""Statistics of several ranks merged in rank order."""

from __future__ import annotations

import pyarrow as pa

from agflow._utils.ranks import Ranks
from agflow.calibration.statistics import Statistics


def gather_statistics(statistics: Statistics) -> Statistics:
    """Merge the statistics of all ranks, in rank order: the same bits on every rank.

    Each rank calibrates on its own share of the images, such as a ``DistributedSampler`` deals out:
    ``agflow.calibration.gather_statistics(agflow.calibrate(model, loader))``. Call it on all ranks.
    The result is that of ``first.merge(second, …)``; without torchrun it is ``statistics`` itself.

    Raises
    ------
    UnknownLayerError, InvalidValueError
        The ranks measured different layers, models or weights.

    Examples
    --------
    >>> import torch
    >>> import agflow
    >>> from agflow.calibration import gather_statistics
    >>> model, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:train", preprocessing=preprocessing, limit=8)
    >>> statistics = agflow.calibrate(model, torch.utils.data.DataLoader(images, batch_size=8))
    >>> gather_statistics(statistics) == statistics  # without torchrun there is one rank
    True
    """
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, statistics.batch.schema) as stream:
        stream.write_batch(statistics.batch)
    gathered = Ranks.of_process().gather(sink.getvalue().to_pybytes())
    first, *others = [Statistics(pa.ipc.open_stream(raw).read_next_batch()) for raw in gathered]
    return first.merge(*others)
