"""Statistics of several processes, merged in one order.

The batches that :func:`agflow.calibrate` takes of a shared loader are divided into 64 shards of
consecutive batches, whatever the number of ranks, and rank r of n measures shards r, r + n, ….
Every rank merges all shards in their order, so that the result has the same bits for every number
of ranks from 2. One process adds all batches in one chain; its float64 sums differ from those by
rounding alone, at most 1e-12 of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pyarrow as pa

from agflow._utils.ranks import Ranks
from agflow.calibration.statistics import Statistics
from agflow.data.shares import Shares

SHARDS = 64


def gather_shards(
    shares: Shares, batches: int, measure: Callable[[Iterable, int], Statistics]
) -> Statistics:
    """Measure this rank's shards and merge those of all ranks: the same bits on every rank.

    Parameters
    ----------
    batches : how many to take at most
    measure : takes a loader and the number of its batches
    """
    count = min(batches, len(shares.batches))
    length = math.ceil(count / SHARDS)
    shards = [range(start, min(start + length, count)) for start in range(0, count, length)]
    ranks = shares.ranks

    def own() -> bytes:
        found = [
            measure(shares.reading(numbers), len(numbers))
            for numbers in shards[ranks.rank :: ranks.size]
        ]
        return _to_bytes(found)

    of_ranks = [_of_bytes(raw) for raw in ranks.gather_results(own)]
    first, *others = [
        of_ranks[number % ranks.size][number // ranks.size] for number in range(len(shards))
    ]
    return first.merge(*others)


def gather_statistics(statistics: Statistics) -> Statistics:
    """Merge the statistics of all ranks, in rank order: the same bits on every rank.

    For ranks that measured images of their own, each with a loader of its own. Statistics that all
    ranks share already, as :func:`agflow.calibrate` gives them for a loader with a
    ``DistributedSampler``, are returned as they are. Call it on all ranks. The result is that of
    ``first.merge(second, …)``; without torchrun it is ``statistics`` itself.

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
    gathered = Ranks.of_process().gather(_to_bytes([statistics]))
    first, *others = [table for raw in gathered for table in _of_bytes(raw)]
    if all(other == first for other in others):  # of the same images, which count once
        return first
    return first.merge(*others)


def _to_bytes(tables: list[Statistics]) -> bytes:
    """The tables as one Arrow stream, each with a metadata of its own; b"" for none."""
    sink = pa.BufferOutputStream()
    for statistics in tables:
        with pa.ipc.new_stream(sink, statistics.batch.schema) as stream:
            stream.write_batch(statistics.batch)
    return sink.getvalue().to_pybytes()


def _of_bytes(raw: bytes) -> list[Statistics]:
    tables, source = [], pa.BufferReader(raw)
    while source.tell() < len(raw):
        with pa.ipc.open_stream(source) as stream:
            tables.append(Statistics(stream.read_all().to_batches()[0]))
    return tables
