"""Loaders of data sets, with worker processes where they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from agflow._utils.ranks import Ranks
from agflow.errors import InvalidValueError


def image_loader(
    dataset: Dataset,
    batch_size: int,
    *,
    workers: int = 0,
    shuffle_seed: int | None = None,
    collate: Callable[[list], Any] | None = None,
    shared: bool = False,
) -> DataLoader:
    """A loader of a data set, which gives the same batches for any number of workers.

    Workers come from a fork server: a fork of a process with threads (those of torch and of the Go
    core) may wait for ever, and inherits its handlers of signals. Each pass starts its own: workers
    that stay would draw less from the generator, which then shuffles the next pass in another way.

    Parameters
    ----------
    workers : processes that decode images; 0 decodes in this one
    shuffle_seed : None keeps the order
    collate : makes a batch of samples, by default torch's own
    shared : deal the images to the processes that ``torchrun`` started, which then calibrate,
        train, predict and evaluate together (:mod:`agflow.data.shares`)

    Raises
    ------
    InvalidValueError
        The batch size is not above 0, or the number of workers negative.

    Examples
    --------
    >>> import agflow
    >>> from agflow.data import image_loader
    >>> _, preprocessing, _ = agflow.load_model("example")
    >>> images = agflow.load_dataset("example:test", preprocessing=preprocessing, limit=40)
    >>> [len(labels) for _, labels in image_loader(images, 16)]
    [16, 16, 8]
    """
    if batch_size < 1 or workers < 0:
        raise InvalidValueError(
            f"batch_size is {batch_size} and workers {workers}, expected at least 1 and 0"
        )
    shuffled = shuffle_seed is not None
    ranks = Ranks.of_process() if shared else Ranks()
    sampler = None
    if ranks.size > 1:
        sampler = DistributedSampler(
            dataset, ranks.size, ranks.rank, shuffle=shuffled, seed=shuffle_seed or 0
        )
    return DataLoader(
        dataset,
        batch_size,
        shuffle=shuffled and sampler is None,
        sampler=sampler,
        generator=None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed),
        collate_fn=collate,
        num_workers=workers,
        multiprocessing_context="forkserver" if workers else None,
    )
