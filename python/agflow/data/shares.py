"""A loader's whole batches, dealt to the processes that ``torchrun`` started.

A loader is shared where its sampler deals to several processes, as torch's ``DistributedSampler``
does. Such samplers deal single images and repeat some so that all ranks have as many. Here whole
batches are dealt, each to one rank: a batch holds the same images for every number of ranks, and
every image counts once.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from agflow._utils.ranks import Ranks
from agflow.data.batches import EMPTY
from agflow.errors import EmptyError, InvalidValueError


@dataclass(frozen=True)
class Shares:
    """The batches of a shared loader, of which every rank computes some.

    Attributes
    ----------
    ranks : this process among those that share the loader
    batches : indices of every batch's images in the dataset
    loader : whose dataset, collation and workers are used
    """

    ranks: Ranks
    batches: list[Any]
    loader: DataLoader

    @classmethod
    def of(cls, loader: Iterable, *, shuffled: bool = False) -> Shares | None:
        """The shares of a loader that a sampler deals to several processes; None for others.

        Parameters
        ----------
        shuffled : keep the sampler's random order, the same on all ranks; else the dataset's order

        Raises
        ------
        InvalidValueError
            The sampler deals to another number of processes than there are, or ranks have
            different datasets or batches.
        """
        sampler = _dealing_sampler(loader)
        if sampler is None or sampler.num_replicas == 1:
            return None
        ranks = Ranks.of_process()
        if (sampler.num_replicas, sampler.rank) != (ranks.size, ranks.rank):
            raise InvalidValueError(
                f"the loader's {type(sampler).__name__} is for rank {sampler.rank} of "
                f"{sampler.num_replicas} processes, this is rank {ranks.rank} of {ranks.size}: "
                "start all with torchrun and let the sampler find its rank"
            )
        assert isinstance(loader, DataLoader)
        batches = _whole_batches(loader, sampler, shuffled)
        if not batches:
            raise EmptyError(EMPTY)
        order = torch.tensor([index for batch in batches for index in _as_list(batch)])
        ranks.agree(images=len(order), batches=len(batches), order=order[:1000].tolist())
        return cls(ranks, batches, loader)

    def reading(self, numbers: Sequence[int]) -> Iterable:
        """A loader of the batches with these numbers, from 0."""
        batches = [self.batches[number] for number in numbers]
        chosen: dict[str, Any] = (
            {"batch_size": None, "sampler": batches}
            if self.loader.batch_size is None and self.loader.batch_sampler is None
            else {"batch_sampler": batches}
        )
        workers = self.loader.num_workers
        return DataLoader(
            self.loader.dataset,
            **chosen,
            num_workers=workers,
            collate_fn=self.loader.collate_fn,
            pin_memory=self.loader.pin_memory,
            worker_init_fn=self.loader.worker_init_fn,
            multiprocessing_context=self.loader.multiprocessing_context if workers else None,
            prefetch_factor=self.loader.prefetch_factor,
        )

    @property
    def own(self) -> range:
        """Numbers of the batches that this rank computes."""
        return range(self.ranks.rank, len(self.batches), self.ranks.size)

    def joined(
        self, compute: Callable[[Iterable], list[dict[str, torch.Tensor]]]
    ) -> list[dict[str, torch.Tensor]]:
        """The rows that all ranks computed of their own batches, in the order of the batches.

        Parameters
        ----------
        compute : gives the named tensors of every batch of a loader. Its error is raised on all
            ranks
        """

        def payload() -> bytes:
            rows = compute(self.reading(self.own)) if self.own else []
            buffer = io.BytesIO()
            if len(rows) != len(self.own):
                raise InvalidValueError(
                    f"{len(self.own) - len(rows)} batches held no image, expected at least one in "
                    "each where several processes share them: let the collation drop no images"
                )
            torch.save(rows, buffer)
            return buffer.getvalue()

        of_ranks = [
            torch.load(io.BytesIO(raw), weights_only=True)
            for raw in self.ranks.gather_results(payload)
        ]
        size = self.ranks.size
        return [of_ranks[number % size][number // size] for number in range(len(self.batches))]


def _dealing_sampler(loader: Iterable) -> Any:
    """The sampler that deals a loader's images to processes, such as a DistributedSampler."""
    if not isinstance(loader, DataLoader):
        return None
    candidates = (loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    return next(
        (each for each in candidates if hasattr(each, "num_replicas") and hasattr(each, "rank")),
        None,
    )


def _whole_batches(loader: DataLoader, sampler: Any, shuffled: bool) -> list[Any]:
    """Indices of the batches that one process would read from the loader's dataset."""
    images = len(loader.dataset)  # pyright: ignore[reportArgumentType]
    order = list(range(images))
    if shuffled and getattr(sampler, "shuffle", False):
        # As DistributedSampler shuffles, before it deals.
        generator = torch.Generator().manual_seed(sampler.seed + sampler.epoch)
        order = torch.randperm(images, generator=generator).tolist()
    size = getattr(loader.batch_sampler, "batch_size", None)
    if size is None:
        return order
    batches = [order[start : start + size] for start in range(0, images, size)]
    incomplete = batches and len(batches[-1]) < size
    return batches[:-1] if incomplete and getattr(loader.batch_sampler, "drop_last", 0) else batches


def _as_list(batch: Any) -> list[int]:
    return batch if isinstance(batch, list) else [batch]
